"""A camera that streams a test picture over RTSP to whoever knows its password: `rtsp_server.py PORT`.

As much of RFC 2326 as a player needs: MPEG-TS in RTP (RFC 3551, payload type 33), over the same connection.
"""

from __future__ import annotations

import base64
import socketserver
import struct
import subprocess
import sys

PICTURE = ("-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10")
WANTED = "Basic " + base64.b64encode(b"viewer:geheim-7f31").decode()
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:stream\r\n"


class Camera(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self._request():
            method, number = head[""].split(" ")[0], head.get("cseq", "0")
            if head.get("authorization") != WANTED and method != "OPTIONS":
                self._answer(401, number, 'WWW-Authenticate: Basic realm="camera"\r\n')
            elif method == "OPTIONS":
                self._answer(200, number, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n")
            elif method == "DESCRIBE":
                self._answer(200, number, "Content-Type: application/sdp\r\n", SDP)
            elif method == "SETUP":
                self._answer(200, number, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n")
            elif method == "PLAY":
                self._answer(200, number, "Session: 1\r\n")
                self._stream()
                return

    def _request(self) -> dict[str, str]:
        lines: list[str] = []
        while (line := self.rfile.readline(4096).decode().strip()) or not lines:
            if not line:
                return {}
            lines.append(line)
        pairs = (line.partition(":") for line in lines[1:])
        return {"": lines[0], **{name.lower(): value.strip() for name, _, value in pairs}}

    def _answer(self, status: int, number: str, head: str, body: str = "") -> None:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.wfile.write(f"RTSP/1.0 {status} -\r\nCSeq: {number}\r\n{head}{length}\r\n{body}".encode())

    def _stream(self) -> None:
        command = [
            "ffmpeg",
            "-nostdin",
            "-loglevel",
            "quiet",
            *PICTURE,
            "-c:v",
            "mpeg2video",
            "-f",
            "mpegts",
            "pipe:1",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as made:
            assert made.stdout is not None
            try:
                for number in range(1 << 20):
                    payload = made.stdout.read(7 * 188)
                    if not payload:
                        return
                    packet = struct.pack("!BBHII", 0x80, 33, number & 0xFFFF, number * 900, 1) + payload
                    self.wfile.write(b"$\0" + struct.pack("!H", len(packet)) + packet)
            except OSError:
                pass
            finally:
                made.kill()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Camera).serve_forever()
