"""A camera that streams a test picture to whoever knows its password: `camera_server.py PORT KIND`."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KIND = sys.argv[2]
CODEC = {"mpjpeg": "mjpeg", "mpegts": "mpeg2video"}[KIND]
CONTENT = {"mpjpeg": "multipart/x-mixed-replace;boundary=ffmpeg", "mpegts": "video/mp2t"}[KIND]
PICTURE = ("-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10")
WANTED = "Basic " + base64.b64encode(b"viewer:geheim-7f31").decode()


class Camera(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == WANTED
        self.send_response(200 if known else 401)
        if not known:
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_header("Content-Type", CONTENT)
        self.end_headers()
        command = ["ffmpeg", "-nostdin", "-loglevel", "quiet", *PICTURE, "-c:v", CODEC, "-f", KIND, "pipe:1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as made:
            assert made.stdout is not None
            try:
                while data := os.read(made.stdout.fileno(), 1 << 15):
                    self.wfile.write(data)
            except OSError:
                pass
            finally:
                made.kill()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Camera).serve_forever()
