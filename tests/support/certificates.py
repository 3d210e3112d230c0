"""Certificates of an authority that lives as long as a test, made by openssl(1)."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; `certificate` is its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory / name
        self._directory.mkdir()
        self.certificate, self.key = self._directory / "ca.pem", self._directory / "ca.key"
        _openssl(
            "req", "-x509", *_KEY, "-keyout", self.key, "-out", self.certificate, "-subj", f"/CN={name}", "-days", "2",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def sign(self, name: str, *, ended: bool = False, usage: str = "serverAuth,clientAuth") -> Pair:
        """A certificate for `localhost` and 127.0.0.1. `ended`: its time was over a year ago."""
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, about = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        about.write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        _openssl("req", *_KEY, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        if ended:  # `openssl x509` learned to set the beginning late
            self._sign_ended(request, pair.certificate, about)
        else:
            _openssl(
                "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                "-out", pair.certificate, "-extfile", about, "-days", "2",
            )  # fmt: skip
        pair.key.chmod(0o600)
        return pair

    def _sign_ended(self, request: Path, certificate: Path, about: Path) -> None:
        (self._directory / "index").write_text("")
        config = self._directory / "ca.conf"
        config.write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self._directory}/index\nnew_certs_dir={self._directory}\nrand_serial=yes\n"
            "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
        )
        _openssl(
            "ca", "-batch", "-config", config, "-in", request, "-cert", self.certificate, "-keyfile", self.key, "-out", certificate,
            "-extfile", about, "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-notext",
        )  # fmt: skip

    def trust(self, show: Pair | None = None) -> ssl.SSLContext:
        """What a client needs: it trusts this authority, and shows a certificate if one is given."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if show is not None:
            context.load_cert_chain(show.certificate, show.key)
        return context


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
