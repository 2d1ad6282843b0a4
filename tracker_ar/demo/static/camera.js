// The camera of the browser.

const QUALITY = 0.92;
const WANTED = { width: { ideal: 640 }, height: { ideal: 480 } };

const REASONS = {
  NotAllowedError: "The browser does not let this page use the camera: allow it beside the address, "
    + "then try again.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera is in use by another program: close it there, then try again.",
};

export class Camera {
  // Raises an Error in words where there is no camera or it may not be used.
  static async open() {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers allow the camera only on pages of this computer or over HTTPS: open the page "
                      + "as http://localhost with its port.");
    }
    const camera = new Camera();
    try {
      camera.stream = await navigator.mediaDevices.getUserMedia({ video: WANTED, audio: false });
    } catch (error) {
      throw new Error(REASONS[error.name] || `The camera cannot be used: ${error.message || error.name}`);
    }
    camera.video = document.createElement("video");
    camera.video.muted = camera.video.playsInline = true;
    camera.video.srcObject = camera.stream;
    await camera.video.play();
    camera.canvas = document.createElement("canvas");
    return camera;
  }

  get size() {
    return [this.video.videoWidth, this.video.videoHeight];
  }

  // What it sees now: a JPEG file, and `canvas` to show.
  async take() {
    [this.canvas.width, this.canvas.height] = this.size;
    this.canvas.getContext("2d").drawImage(this.video, 0, 0);
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", QUALITY));
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
  }
}
