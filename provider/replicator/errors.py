"""Every error that a person can meet, each with a stable code.

The first paragraph of a docstring is the cause, the second the way out; docs/errors.md has both, with an example.

ReplicatorError
├── InvalidStream            RPL-STREAM-INVALID     an input is wrong as it stands
├── StreamNotFound           RPL-STREAM-NOTFOUND    the engine has no such stream
├── StreamProtected          RPL-STREAM-PROTECTED   deletionProtection is on
├── Unsupported              RPL-CAP-UNSUPPORTED    the backend cannot do it; says what would work
├── NotOurs                  RPL-OWNER-NONE         the object carries no marker of ours
├── OwnedByAnother           RPL-OWNER-OTHER        another resource manages the stream
├── RecordUnreadable         RPL-RECORD-UNREADABLE  the engine's record of the stream cannot be read
├── InvalidConfig            RPL-CONFIG-INVALID     the provider's configuration is wrong
├── SecretSyntax             RPL-AUTH-SYNTAX        an authRef cannot be read
├── SecretNotFound           RPL-AUTH-NOTFOUND      an authRef names nothing
├── SecretExposed            RPL-AUTH-EXPOSED       a secret would be sent where others read it
├── PolicyRefused            RPL-POLICY-REFUSED     the agent's policy does not grant it
├── PolicyUnusable           RPL-POLICY-FILE        the agent's policy file cannot be used
├── PolicyMissing            RPL-POLICY-NONE        the agent has no policy, and grants everything
├── SourceMissing            RPL-SOURCE-MISSING     the source is not there
├── SourceFormat             RPL-SOURCE-FORMAT      the source is not what its kind says
├── SourceLocked             RPL-SOURCE-LOCKED      a writer holds the source
├── SourceDenied             RPL-SOURCE-DENIED      no permission on the source
├── SourceSwapped            RPL-SOURCE-SWAPPED     another file took the source's place
├── SourceFull               RPL-SOURCE-FULL        no space left beside the source
├── SourceSetup              RPL-SOURCE-SETUP       the source lacks what the engine needs; the SQL is in the fix
├── SourceLimit              RPL-SOURCE-LIMIT       no slot, sender, connection or WAL is left
├── SourcePosition           RPL-SOURCE-POSITION    the slot is gone, was made again, or is ahead
├── DestinationMissing       RPL-DEST-MISSING       the bucket or folder is not there
├── DestinationDenied        RPL-DEST-DENIED        the destination refuses the credentials
├── DestinationInUse         RPL-DEST-INUSE         another writer's data is there
├── DestinationSetup         RPL-DEST-SETUP         the destination lacks what the stream needs; the SQL is in the fix
├── CopiesAgain              RPL-SOURCE-COPIED      a change uploads, or may upload, the whole source again
├── GroupsNotSynced          RPL-GROUPS-SYNC        how far offsets of consumer groups follow
├── EngineUnavailable        RPL-ENGINE-DOWN        the engine or its store did not answer
├── EngineRefused            RPL-ENGINE-REFUSED     the engine answered with an error
├── EngineDenied             RPL-ENGINE-DENIED      the engine and we do not trust each other
├── AgentUnreachable         RPL-AGENT-DOWN         nothing listens at the agent's address
│   ├── HostUnreachable      RPL-SSH-UNREACHABLE    the agent's host does not answer
│   ├── HostKeyUnknown       RPL-SSH-KEYUNKNOWN     the host's key is not known here
│   ├── HostKeyChanged       RPL-SSH-KEYCHANGED     the host shows another key than before
│   ├── LoginRefused         RPL-SSH-LOGIN          the host refuses the login
│   ├── ForwardingRefused    RPL-SSH-FORWARDING     the host has no command for ssh, and forwards no socket
│   ├── SshMissing           RPL-SSH-MISSING        this host has no ssh program
│   └── SshFailed            RPL-SSH-FAILED         ssh failed; its own words are quoted
├── AgentVersion             RPL-AGENT-VERSION      the agent speaks another protocol
├── AgentFault               RPL-AGENT-FAULT        the agent failed in a way that it did not expect
├── ReplayRefused            RPL-REPLAY-REFUSED     the replay would do harm or nothing
├── ReplayNotRetained        RPL-REPLAY-RETENTION   the start is no longer kept
├── ReplayKeyReused          RPL-REPLAY-KEY         the key belongs to another replay
├── ReplayNotFound           RPL-REPLAY-NOTFOUND    no replay has this key
├── ReplayFailed             RPL-REPLAY-FAILED      a replay began and did not finish
├── WaitTimeout              RPL-WAIT-TIMEOUT       a wait ran out of time
└── WaitCancelled            RPL-WAIT-CANCELLED     a wait was cancelled
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import ClassVar


class Category(Enum):
    """What an error means to a caller; transports map it to their own status codes."""

    INVALID = "invalid"
    MISSING = "missing"
    CONFLICT = "conflict"
    DENIED = "denied"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ReplicatorError(Exception):
    """What happened, to which stream and property, and what to do next."""

    code: ClassVar[str] = "RPL-UNKNOWN"
    category: ClassVar[Category] = Category.FAILED
    unfinished: bool = False
    """What was asked for may have happened, in part or whole: an answer was lost, or a later step failed."""

    def __init__(
        self, message: str, *, stream: str | None = None, property: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.stream = stream
        self.property = property
        self.fix = fix

    def __str__(self) -> str:
        subject = f"stream {self.stream!r}: " if self.stream else ""
        path = f"{self.property}: " if self.property else ""
        fix = f"\n  → {self.fix}" if self.fix else ""
        return f"{subject}{path}{self.message} [{self.code}]{fix}"


class InvalidStream(ReplicatorError):
    """An input is wrong as it stands.

    Correct the property that the error names. The reference says what each one may hold.
    """

    code = "RPL-STREAM-INVALID"
    category = Category.INVALID


class StreamNotFound(ReplicatorError):
    """The engine answered, and has no such stream.

    Look at what is there with `replicator list`. If the stream was removed at the engine, `pulumi refresh` takes it out
    of the state, and the next `pulumi up` creates it again.
    """

    code = "RPL-STREAM-NOTFOUND"
    category = Category.MISSING


class StreamProtected(ReplicatorError):
    """The stream has deletionProtection, and is to be removed or replaced.

    Where that is meant, set `deletionProtection` to false and run `pulumi up`; then do it again.
    """

    code = "RPL-STREAM-PROTECTED"
    category = Category.CONFLICT


class Unsupported(ReplicatorError):
    """The backend cannot do what the property asks; the text says what would work.

    Do what the text says. The table of the backends has every refusal, and `getCapabilities` tells it to a program.
    """

    code = "RPL-CAP-UNSUPPORTED"
    category = Category.INVALID


class NotOurs(ReplicatorError):
    """A stream of this name is at the engine, and no resource manages it.

    Import it, with the command that the error names. A connector that you created yourself becomes a stream with
    `replicator adopt`. Where it is another stream that happens to have the name, give yours another `name`.
    """

    code = "RPL-OWNER-NONE"
    category = Category.CONFLICT


class OwnedByAnother(ReplicatorError):
    """Another resource manages the stream.

    Give yours another `name`. To move the stream to another stack, remove it from the state of the old one
    (`pulumi state delete`), and import it into the other.
    """

    code = "RPL-OWNER-OTHER"
    category = Category.CONFLICT


class RecordUnreadable(ReplicatorError):
    """The engine's side has a record of the stream that this release cannot read. It is damaged, or a later release or
    another backend wrote it. The stream counts as failed, and nothing writes over the record.

    Upgrade replicator-provider where a later release wrote it. Restore a damaged record from a backup. Where the name
    belongs to another backend's stream, choose another `name`.
    """

    code = "RPL-RECORD-UNREADABLE"
    category = Category.CONFLICT


class InvalidConfig(ReplicatorError):
    """The provider's configuration, or what a command was given, is wrong or lacks something.

    Correct the setting, the file or the option that the error names.
    """

    code = "RPL-CONFIG-INVALID"
    category = Category.INVALID


class SecretSyntax(ReplicatorError):
    """An authRef is not a reference that this release can read.

    Write one of the forms of the page on secrets. The text of the reference is not repeated, since it may be a pasted
    password: where it was one, change that password.
    """

    code = "RPL-AUTH-SYNTAX"
    category = Category.INVALID


class SecretNotFound(ReplicatorError):
    """An authRef is well formed but names nothing where it is resolved.

    Provide the variable or the key to the agent, which resolves it on its host. The agent reads its environment when it
    starts, so a new variable needs a restart of the agent. A file is read when the stream starts. For a mirror, the
    Connect worker resolves it by its `config.providers`, and Pulumi's host for its own questions.
    """

    code = "RPL-AUTH-NOTFOUND"
    category = Category.MISSING


class SecretExposed(ReplicatorError):
    """A secret would be sent where others can read it: as the id of a key, or over `http://` to another host.

    Name the entry that holds the id. Use an `https://` endpoint; where the network is your own, let the agent's policy
    name the `http://` endpoint.
    """

    code = "RPL-AUTH-EXPOSED"
    category = Category.DENIED


class PolicyRefused(ReplicatorError):
    """The policy of the agent does not grant what the stream or the replay asks for. Nothing was read or sent.

    Where it is meant, add the lines that the error prints to the agent's policy file, on the agent's host. The agent
    reads the file again by itself.
    """

    code = "RPL-POLICY-REFUSED"
    category = Category.DENIED


class PolicyUnusable(ReplicatorError):
    """The policy file of the agent cannot be read, or other users may change it. The agent refuses to start with it; an
    agent that runs grants nothing new until the file is right.

    Correct what the error names. The agent reads the file again by itself.
    """

    code = "RPL-POLICY-FILE"
    category = Category.DENIED


class PolicyMissing(ReplicatorError):
    """The agent has no policy file, so it grants everything: a program that is only previewed may name any secret and
    any endpoint. A later release refuses to start without one.

    Run `replicator agent init` on the agent's host. It writes the file from the streams that are there.
    """

    code = "RPL-POLICY-NONE"
    category = Category.DENIED


class SourceMissing(ReplicatorError):
    """The source is not there, or the folder that a copy goes to.

    Check the path. It is a path on the agent's host, and the agent's user has to reach it.
    """

    code = "RPL-SOURCE-MISSING"
    category = Category.MISSING


class SourceFormat(ReplicatorError):
    """The source is not what its kind says, for example not an SQLite file.

    Point `source.uri` at an SQLite file. Where the file is damaged, a replay by `copy` writes a good one from the
    replica, under another path.
    """

    code = "RPL-SOURCE-FORMAT"
    category = Category.INVALID


class SourceLocked(ReplicatorError):
    """A writer holds the source longer than we wait.

    End the transaction that holds the database. A stream that was running then continues by itself; a create or an
    update has to be run again.
    """

    code = "RPL-SOURCE-LOCKED"
    category = Category.UNAVAILABLE


class SourceDenied(ReplicatorError):
    """No permission on the source, or it is read-only where the engine must write.

    Give the agent's user write permission on the database and on its folder; under systemd, in `ReadWritePaths=` too.
    For a mirror, grant what the page on kafka-mirror lists.
    """

    code = "RPL-SOURCE-DENIED"
    category = Category.DENIED


class SourceSwapped(ReplicatorError):
    """Another file took the place of the source while it was replicated, or was copied over it.

    Where the new file is the right one, run `pulumi up --refresh`, which copies it whole under a new prefix. Else put
    the old one back.
    """

    code = "RPL-SOURCE-SWAPPED"
    category = Category.CONFLICT


class SourceFull(ReplicatorError):
    """No space is left where the source or its side files live.

    Free space on the database's disk. A stream that failed then continues by itself.
    """

    code = "RPL-SOURCE-FULL"
    category = Category.UNAVAILABLE


class SourceSetup(ReplicatorError):
    """The database lacks what a stream needs of it: a publication, a replication slot, the identity of rows, a right or
    a setting. Or another stream has an object of that name.

    Run the SQL that the error prints as a role that may. With `adminAuthRef`, the provider makes publication and helper
    tables itself.
    """

    code = "RPL-SOURCE-SETUP"
    category = Category.CONFLICT


class SourceLimit(ReplicatorError):
    """The database has no replication slot, WAL sender or connection left. Or a slot holds so much WAL that the server
    is about to remove it. Kafka Connect takes a connector past the limit, and its task fails afterwards.

    Raise the setting that the error names, and restart the server; or drop slots that nothing reads. Resume or remove a
    stream whose slot holds WAL.
    """

    code = "RPL-SOURCE-LIMIT"
    category = Category.UNAVAILABLE


class SourcePosition(ReplicatorError):
    """The database can no longer send the changes after the stream's position. The replication slot was dropped,
    re-created or moved, or the server removed WAL that it needed. Changes are lost to the stream.

    Remove the stream and create it again, with a new slot and a new snapshot: `pulumi destroy --target URN`, then
    `pulumi up`. Rows that were deleted at the source meanwhile stay at the destination.
    """

    code = "RPL-SOURCE-POSITION"
    category = Category.CONFLICT


class DestinationMissing(ReplicatorError):
    """The bucket or folder of the destination is not there, or the replica that a stream wrote there was deleted.

    Make the bucket, or correct its name. A deleted replica is written again by `pulumi up --refresh`, under a new
    prefix. Where the same program makes it, set `preflight: warn` on the provider, and
    let the stream depend on the bucket.
    """

    code = "RPL-DEST-MISSING"
    category = Category.MISSING


class DestinationDenied(ReplicatorError):
    """The destination refuses our credentials.

    Check the key that `authRef` names and what it permits; the page on secrets lists what litestream needs. Without an
    `authRef`, the role of the agent's host counts. For a mirror, the page on kafka-mirror lists the rights.
    """

    code = "RPL-DEST-DENIED"
    category = Category.DENIED


class DestinationInUse(ReplicatorError):
    """Another stream or agent writes to the destination, or another writer's data is there.

    Choose an empty prefix. Where another litestream replicates the database, stop it. Where the agent that claims it is
    gone for good, `replicator agent takeover` takes it over. For a replica that a litestream of your own wrote,
    `replicator agent adopt` continues it. Of two mirrors that write one topic, exclude it in one.
    """

    code = "RPL-DEST-INUSE"
    category = Category.CONFLICT


class DestinationSetup(ReplicatorError):
    """The database that a stream writes to lacks what the stream needs of it: a table, a key, a column, a type or a
    right. Or a table there has something that would make writes fail, such as a foreign key.

    Run the SQL that the error prints as a role that may. With `adminAuthRef`, the provider makes tables and columns
    itself.
    """

    code = "RPL-DEST-SETUP"
    category = Category.CONFLICT


class CopiesAgain(ReplicatorError):
    """A change uploads the whole source again, or may have to. It stands in a preview and fails no change.

    Run the change when the upload of so many bytes does no harm. As information it means that the application may
    restart its WAL in the moment of the change, which cannot be known before.
    """

    code = "RPL-SOURCE-COPIED"
    category = Category.FAILED


class GroupsNotSynced(ReplicatorError):
    """How far the offsets of consumer groups follow a mirror. It stands beside a status and fails no change.

    As a warning it means that a consumer cannot continue at the destination: no group matches, or no checkpoint was
    written. Do what the text says. As information it has the number of groups and the time of the last checkpoint.
    """

    code = "RPL-GROUPS-SYNC"
    category = Category.FAILED


class EngineUnavailable(ReplicatorError):
    """The engine, or the store that it needs, did not answer. It says nothing about the stream.

    Run the command again when it answers. A stream that runs continues by itself.
    """

    code = "RPL-ENGINE-DOWN"
    category = Category.UNAVAILABLE


class EngineRefused(ReplicatorError):
    """The engine answered with an error; its text is quoted.

    Fix what the engine says, and run the command again.
    """

    code = "RPL-ENGINE-REFUSED"
    category = Category.FAILED


class EngineDenied(ReplicatorError):
    """The engine refuses our credentials, or one side does not trust the other's certificate.

    Check `authRef`, `caFile` and `certificateFile` of the backend's block in the provider's configuration.
    """

    code = "RPL-ENGINE-DENIED"
    category = Category.DENIED


class AgentUnreachable(ReplicatorError):
    """Nothing answers at the agent's address. The codes `RPL-SSH-…` tell what else can be wrong on the way to it.

    Start the agent, or correct the address in the configuration. `replicator doctor` looks at each part of the way.
    """

    code = "RPL-AGENT-DOWN"
    category = Category.UNAVAILABLE


class HostUnreachable(AgentUnreachable):
    """The agent's host does not answer: its name, the network, or its sshd.

    See that the `ssh` command in the error works from this machine.
    """

    code = "RPL-SSH-UNREACHABLE"


class HostKeyUnknown(AgentUnreachable):
    """The key that the agent's host shows is not in known_hosts, so it may be another host.

    Log in once by hand and compare the fingerprint, or give CI a `UserKnownHostsFile` with the key.
    """

    code = "RPL-SSH-KEYUNKNOWN"
    category = Category.DENIED


class HostKeyChanged(AgentUnreachable):
    """The agent's host shows another key than the one in known_hosts, or one that was revoked.

    Ask who runs the host whether its key was changed. Only then remove the old one with `ssh-keygen -R`.
    """

    code = "RPL-SSH-KEYCHANGED"
    category = Category.DENIED


class LoginRefused(AgentUnreachable):
    """The agent's host refuses the login: the user, or every key that was offered.

    See that the `ssh` command in the error works without a question. A key with a passphrase has to be in ssh-agent.
    """

    code = "RPL-SSH-LOGIN"
    category = Category.DENIED


class ForwardingRefused(AgentUnreachable):
    """The host has no `replicator agent dial-stdio`, and its sshd does not let the login forward to the agent's socket.

    Install this version there, with `replicator` on the PATH of ssh's commands. Until then allow forwarding in the
    host's `sshd_config`, or for the key in `authorized_keys`; the page on the agent has the lines.
    """

    code = "RPL-SSH-FORWARDING"
    category = Category.DENIED


class SshMissing(AgentUnreachable):
    """An address says ssh, and this host has no ssh program on its PATH.

    Install OpenSSH's client.
    """

    code = "RPL-SSH-MISSING"


class SshFailed(AgentUnreachable):
    """ssh ended in a way of its own; its words are quoted.

    See that the `ssh` command in the error works; most often a line of `~/.ssh/config` is wrong.
    """

    code = "RPL-SSH-FAILED"


class AgentVersion(ReplicatorError):
    """The agent speaks another version of the protocol.

    Upgrade the side that the error calls older. An agent takes every stream up again after a restart.
    """

    code = "RPL-AGENT-VERSION"
    category = Category.CONFLICT


class AgentFault(ReplicatorError):
    """The agent could not do its work, for a reason that lies with the agent itself.

    Do what the error says; else read the agent's log, which has the details.
    """

    code = "RPL-AGENT-FAULT"
    category = Category.FAILED


class ReplayRefused(ReplicatorError):
    """The replay would do harm, or cannot do what was asked.

    Change what the error names. Nothing was done.
    """

    code = "RPL-REPLAY-REFUSED"
    category = Category.CONFLICT


class ReplayNotRetained(ReplicatorError):
    """The start of the replay is no longer retained; the text names the nearest kept points.

    Start at one of those. The agent's `--replay-window` keeps single transactions longer, from then on; a mirror's
    source keeps what the retention of its topics says. A mirror that cannot continue without a gap continues by a
    replay.
    """

    code = "RPL-REPLAY-RETENTION"
    category = Category.CONFLICT


class ReplayKeyReused(ReplicatorError):
    """The idempotency key was used for a replay with other arguments.

    Use another key for another replay. The same key with the same arguments gives the result of the first run.
    """

    code = "RPL-REPLAY-KEY"
    category = Category.CONFLICT


class ReplayNotFound(ReplicatorError):
    """The engine's side has no record of a replay with this key.

    Check the stream and the key. A replay that was never begun, or whose stream was removed, has no record.
    """

    code = "RPL-REPLAY-NOTFOUND"
    category = Category.MISSING


class ReplayFailed(ReplicatorError):
    """A replay began and did not finish; its record says why.

    Fix the cause, and replay under another key: the old one keeps its failure. A `ReplayRun` gets another key by a
    change of its `triggers`.
    """

    code = "RPL-REPLAY-FAILED"
    category = Category.FAILED


class WaitTimeout(ReplicatorError):
    """A wait ran out of time, or what it waits for does not continue by itself; nothing was undone.

    Look at the stream with `replicator status`. Where it only needs longer, raise `customTimeouts`, and run `pulumi up`
    again, which continues with what is there.
    """

    code = "RPL-WAIT-TIMEOUT"
    category = Category.TIMEOUT


class WaitCancelled(ReplicatorError):
    """A wait was cancelled; nothing was undone.

    Run the same command again. It continues with what is there.
    """

    code = "RPL-WAIT-CANCELLED"
    category = Category.CANCELLED


def _below(cls: type[ReplicatorError]) -> Iterator[type[ReplicatorError]]:
    for found in cls.__subclasses__():
        yield found
        yield from _below(found)


BY_CODE: dict[str, type[ReplicatorError]] = {cls.code: cls for cls in _below(ReplicatorError)}
