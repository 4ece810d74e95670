"""Files that hold secrets by their names. Nothing of them is ever sent, whatever the settings say."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import cache

NAMES = (
    # environments
    ".env*", "*.env",
    # keys and certificates with keys
    "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.pkcs12", "*.jks", "*.jceks", "*.bks", "*.keystore", "*.ppk",
    "*.gpg", "*.pgp", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*_rsa", "*_dsa", "*_ecdsa", "*_ed25519",
    "ssh_host_*_key",
    # password stores
    "*.kdb", "*.kdbx", "*.psafe3", "*.agilekeychain", "*.keychain", "*.keychain-db", "*.ovpn",
    # credentials of programs
    ".netrc", "_netrc", ".authinfo", ".pgpass", "pgpass.conf", ".my.cnf", ".mylogin.cnf", ".git-credentials",
    ".npmrc", ".pypirc", ".dockercfg", ".htpasswd", ".s3cfg", ".boto", ".vault-token", "vault_pass*", ".vault_pass*",
    "kubeconfig*", "*.kubeconfig", "credentials", "credentials.json", "credentials.toml", "credentials.y*ml",
    "credentials.ini", "credentials.xml", "credentials.csv", "credentials.db", "client_secret*.json",
    "service-account*.json", "service_account*.json", "secrets.json", "secrets.toml", "secrets.y*ml", "secrets.ini",
    ".secrets*", "accesstokens.json", "azureprofile.json", "rclone.conf", ".rhosts", "shadow", "gshadow",
    # infrastructure
    "*.tfstate", "*.tfstate.*", "*.tfvars", "*.tfvars.json", ".terraformrc", "terraform.rc",
    # what was typed
    ".*_history", "*.har",
)  # fmt: skip
"""Globs of file names, without regard to case."""

FOLDERS = (
    ".ssh", ".aws", ".azure", ".gnupg", ".kube", ".password-store", ".config/gcloud", ".config/gh", ".config/op",
    ".local/share/keyrings",
)  # fmt: skip
"""Folders, anywhere, of which no file is sent."""

PATHS = (".docker/config.json", ".git/config", ".composer/auth.json", ".gem/credentials", ".cargo/credentials")
"""Single files by the end of their paths."""

_ENDS = tuple(f"/{path}" for path in PATHS)
_WITHIN = tuple(f"/{folder}/" for folder in FOLDERS)


@cache
def _name() -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in NAMES))


def is_secret(path: str, names: Iterable[str] = ()) -> bool:
    """Whether a file is one that holds secrets, by its path and by what else it may be called."""
    lower = f"/{path}".casefold().replace("\\", "/")
    if any(_name().fullmatch(name.casefold().rpartition("/")[2]) for name in (lower, *names)):
        return True
    return lower.endswith(_ENDS) or any(folder in lower for folder in _WITHIN)
