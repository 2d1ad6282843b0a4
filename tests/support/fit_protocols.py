"""Checked by mypy, never run: every engine offers what the protocol of its kind asks for."""

from __future__ import annotations

from tracker_ar.base.adapted import AdaptedTracker
from tracker_ar.base.atom import ATOMTracker
from tracker_ar.base.dimp import DiMPTracker
from tracker_ar.base.eco import ECOTracker
from tracker_ar.base.rt_mdnet import RTMDNetTracker
from tracker_ar.base.siam_rpn import SiamRPNTracker
from tracker_ar.base.static import StaticTracker
from tracker_ar.prediction import BaseTracker, Refiner, Tracker
from tracker_ar.refine.box_refiner import BoxRefiner
from tracker_ar.refine.refiner import SegmentingRefiner
from tracker_ar.tracker import AlphaRefineTracker


def base_trackers(
    dimp: DiMPTracker, atom: ATOMTracker, siam_rpn: SiamRPNTracker, rt_mdnet: RTMDNetTracker, eco: ECOTracker,
    adapted: AdaptedTracker, static: StaticTracker,
) -> list[BaseTracker]:
    return [dimp, atom, siam_rpn, rt_mdnet, eco, adapted, static]


def refiners(masks: SegmentingRefiner, boxes: BoxRefiner) -> list[Refiner]:
    return [masks, boxes]


def trackers(tracker: AlphaRefineTracker) -> list[Tracker]:
    return [tracker]
