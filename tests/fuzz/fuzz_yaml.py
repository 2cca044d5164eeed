"""Documents as people write them, of any text: typed documents, or `DocumentRejected` with its problems."""

from __future__ import annotations

from skerry.spec.documents import KINDS
from skerry.spec.parsing import decode_text, parse_documents, parse_raw
from skerry.spec.problems import DocumentRejected
from tests.fuzz.target import Broken, Target

_MODEL = b"""\
apiVersion: skerry/v1
kind: Model
metadata: {name: digits, labels: &l {a: "1"}}
spec:
  version: "1.10"
  variants:
    - name: fp32
      format: onnx
      requires: {arch: [x86_64], memory: 1GiB}
      files: [{path: model.onnx, source: build/model.onnx}]
---
# nothing
---
{"apiVersion": "skerry/v1", "kind": "Model", "metadata": {"name": "m", "labels": *l}, "spec": {}}
"""
_APPLICATION = b"""\
apiVersion: skerry/v1
kind: Application
metadata:
  name: reader
spec:
  version: 1.0.0
  components:
    - name: reader
      command: [python3, "${data}/app"]
      ports:
        - name: http
      probes:
        startup: {http: {port: http, path: /healthz}, period: 500ms}
      config: |
        a: b
"""


def run(data: bytes) -> None:
    """Parse an input."""
    try:
        for parsed in parse_documents(decode_text(data, file="any.yaml"), file="any.yaml"):
            if parse_raw(parsed.raw) != parsed.document:
                raise Broken("a document is another as JSON")
    except DocumentRejected as rejected:
        if not rejected.problems:
            raise Broken("rejected without a problem") from rejected
        str(rejected)


def seeds() -> list[bytes]:
    """Return documents that are right, ones that are not, and what YAML has besides."""
    odd = [
        b"", b"~", b"- 1\n- [2]\n", b"? {a: 1}\n: b\n", b"a: &a [*a]\n", b"<<: {a: 1}\nb: !!binary aGk=\n",
        b"kind: Model\nkind: Site\n", b"%YAML 1.1\n---\n!x y: 2001-01-01\n", b"a: 0x1F\nb: 1e400\nc: .nan\nd: 1:30\n",
    ]  # fmt: skip
    least = [
        f"apiVersion: skerry/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n".encode() for kind in KINDS
    ]
    return [_MODEL, _APPLICATION, *odd, *least]


_WORDS = [
    "apiVersion",
    "skerry/v1",
    "kind",
    "metadata",
    "name",
    "labels",
    "spec",
    "version",
    "components",
    "variants",
    "requires",
    "files",
]
TARGET = Target(
    run,
    seeds,
    tokens=tuple(
        word.encode() for word in (*_WORDS, *KINDS, "---\n", "&a ", "*a", "<<: ", "!!int ", "? ", "\n  - ")
    ),
    max_bytes=4096,
)
