"""The weights that the references were recorded with come out bit for bit."""

from __future__ import annotations

import hashlib
import json
import zlib

import numpy as np
import pytest
from recipe import FAMILY, MASK_REFINER, SUPER_DIMP, weights
from recorded import DATA, key_shapes, read_json


@pytest.mark.parametrize("net", [SUPER_DIMP, MASK_REFINER])
def test_weights_have_the_recorded_checksum(net: str) -> None:
    digest = hashlib.sha256()
    for _, array in weights(net, key_shapes(net)):
        digest.update(np.ascontiguousarray(array).data)
    assert digest.hexdigest() == read_json("recipe_checksums.json")[net]["sha256_all_in_state_dict_order"]


@pytest.mark.parametrize("net", FAMILY)
def test_weights_of_the_other_systems(net: str) -> None:
    recorded = json.loads((DATA / "family" / "recipe_checksums.json").read_text())[net]
    crcs = {key: zlib.crc32(np.ascontiguousarray(array)) for key, array in weights(net, key_shapes(net))}
    assert crcs == {key: crc for key, (crc, _) in recorded.items()}
