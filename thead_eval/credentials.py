"""Signed Content Credentials (C2PA) in files that theval made, with a certificate and key that the user has."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from thead_eval import __version__
from thead_eval.errors import ConfigError, MediaError
from thead_eval.marking import SYNTHETIC_SOURCE, describe_synthetic

if TYPE_CHECKING:
    from c2pa import Signer
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

SIGNED = frozenset({".mp4", ".mov", ".png", ".jpg", ".jpeg", ".gif"})  # what both theval writes and C2PA embeds in


@dataclass(frozen=True)
class SigningKey:
    """A certificate chain and its private key, both PEM."""

    certificate: bytes
    key: bytes
    algorithm: bytes  # a C2PA name, as b"es256"


def read_signing_key(certificate: Path, key: Path) -> SigningKey:
    """Read both files, so that a wrong one shows before an hour of work.

    Raises:
        ConfigError: the extra package is absent, a file cannot be read, or the key is of a kind that C2PA has not.
    """
    try:
        import c2pa
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            load_pem_private_key,
        )
        from cryptography.x509 import load_pem_x509_certificates
    except ImportError:
        raise ConfigError(
            "Content Credentials need the package c2pa-python; run 'pip install \"theval[credentials]\"'"
        ) from None
    try:
        chain, secret = certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read '{error.filename}' ({error.strerror}); check --certificate and --key"
        ) from error
    try:
        load_pem_x509_certificates(chain)
    except ValueError as error:
        raise ConfigError(f"'{certificate}' is not a PEM certificate chain ({error}); give another file") from error
    try:
        private = load_pem_private_key(secret, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"'{key}' is not a PEM private key without a password ({error}); give another") from error
    algorithm = _algorithm(private)
    if algorithm is None:
        raise ConfigError(f"'{key}' is of a kind that C2PA does not sign with; give an EC, Ed25519 or RSA key")
    # The one form that C2PA's library reads.
    signing = SigningKey(chain, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), algorithm)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    try:
        with _signer(signing) as signer, c2pa.Builder(_claim("trial", "none")) as builder:
            builder.sign(signer, "image/png", picture, io.BytesIO())
    except c2pa.C2paError as error:
        raise ConfigError(
            f"'{certificate}' cannot sign ({_words(error)}); it must be a certificate for C2PA that fits the key, "
            "followed by the chain of its issuers"
        ) from error
    return signing


def sign(path: Path, key: SigningKey, generator: str) -> None:
    """Replace a file by the same with signed Content Credentials: made by a trained algorithm, by theval.

    A signature holds random numbers: the same command gives other bytes.

    Raises:
        MediaError: the file cannot be signed or written.
    """
    import c2pa

    signed = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with _signer(key) as signer, c2pa.Builder(_claim(path.name, generator)) as builder:
            builder.sign_file(path, signed, signer)
        signed.replace(path)
    except (c2pa.C2paError, OSError) as error:
        signed.unlink(missing_ok=True)
        raise MediaError(f"cannot sign '{path}' ({_words(error)}); check the folder and the free space") from error


def _signer(key: SigningKey) -> "Signer":
    import c2pa

    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(key.algorithm, key.certificate, key.key, None))


def _claim(title: str, generator: str) -> dict[str, Any]:  # Any: JSON
    tool = {"name": "theval", "version": __version__}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": SYNTHETIC_SOURCE,
        "softwareAgent": tool,
        "description": describe_synthetic(generator),
    }
    return {
        "claim_generator_info": [tool],
        "title": title,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def read_credentials(path: Path) -> dict[str, Any] | None:  # Any: JSON
    """The active C2PA manifest of a file; None where it has none."""
    store = read_store(path)
    if store is None:
        return None
    manifest: dict[str, Any] = store["manifests"][store["active_manifest"]]
    return manifest


def read_store(path: Path) -> dict[str, Any] | None:  # Any: JSON
    """All C2PA manifests of a file, with what checking them gave; None where it has none, or is of no kind that can.

    Reads the file alone: a manifest that lies elsewhere is not fetched.

    Raises:
        ConfigError: the extra package is absent.
        MediaError: there are manifests, but they cannot be read.
    """
    try:
        import c2pa
    except ImportError:
        raise ConfigError(
            "Content Credentials need the package c2pa-python; run 'pip install \"theval[credentials]\"'"
        ) from None
    settings = c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False}})
    try:
        with c2pa.Context(settings) as context:
            reader = c2pa.Reader.try_create(path, context=context)
            if reader is None:
                return None
            with reader:
                store: dict[str, Any] = json.loads(reader.json())
                return store
    except c2pa.C2paError.NotSupported:
        return None
    except (c2pa.C2paError, json.JSONDecodeError) as error:
        raise MediaError(f"the Content Credentials of '{path}' cannot be read ({_words(error)})") from error


def _algorithm(key: "PrivateKeyTypes") -> bytes | None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {256: b"es256", 384: b"es384", 521: b"es512"}.get(key.key_size)
    if isinstance(key, rsa.RSAPrivateKey):
        return b"ps256"
    return b"ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else None
