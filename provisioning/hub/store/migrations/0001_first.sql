-- Times are milliseconds since the Unix epoch, UTC. Hashes and session ids are raw bytes.

CREATE TABLE sessions (
  sid       BLOB    NOT NULL PRIMARY KEY CHECK (length(sid) = 16),
  room      TEXT    NOT NULL,
  starts    INTEGER NOT NULL,
  ends      INTEGER NOT NULL CHECK (ends > starts),
  created   INTEGER NOT NULL,
  ended     INTEGER,
  reason    TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX sessions_by_room ON sessions (room, ends) WHERE ended IS NULL;

CREATE TABLE participants (
  id    TEXT    NOT NULL PRIMARY KEY,
  sid   BLOB    NOT NULL REFERENCES sessions (sid) ON DELETE CASCADE,
  place INTEGER NOT NULL,
  role  TEXT    NOT NULL,
  name  TEXT    NOT NULL
) STRICT;
CREATE INDEX participants_by_session ON participants (sid, place);

-- hash is the SHA-256 of the invitation, browser the SHA-256 of the cookie that used it.
CREATE TABLE invitations (
  hash        BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  participant TEXT    NOT NULL REFERENCES participants (id) ON DELETE CASCADE,
  created     INTEGER NOT NULL,
  used        INTEGER,
  browser     BLOB    CHECK (browser IS NULL OR length(browser) = 32),
  CHECK ((used IS NULL) = (browser IS NULL))
) STRICT;
CREATE UNIQUE INDEX invitations_by_participant ON invitations (participant);
CREATE INDEX invitations_by_browser ON invitations (browser) WHERE browser IS NOT NULL;

-- One living bearer for each participant; hash is the SHA-256 of the bearer.
CREATE TABLE joins (
  hash        BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  participant TEXT    NOT NULL UNIQUE REFERENCES participants (id) ON DELETE CASCADE,
  created     INTEGER NOT NULL
) STRICT;

-- A session's LiveKit room. A row with closed set waits for the room's deletion at the SFU.
CREATE TABLE openings (
  media_room TEXT    NOT NULL PRIMARY KEY,
  sid        BLOB    NOT NULL REFERENCES sessions (sid) ON DELETE CASCADE,
  d          BLOB    NOT NULL CHECK (length(d) = 32),
  opened     INTEGER NOT NULL,
  closed     INTEGER
) STRICT;
CREATE UNIQUE INDEX openings_current ON openings (sid) WHERE closed IS NULL;

CREATE TABLE admissions (
  media_room  TEXT    NOT NULL REFERENCES openings (media_room) ON DELETE CASCADE,
  d           BLOB    NOT NULL CHECK (length(d) = 32),
  participant TEXT    NOT NULL REFERENCES participants (id) ON DELETE CASCADE,
  admitted    INTEGER NOT NULL,
  PRIMARY KEY (media_room, d)
) STRICT;

-- Owner roots are kept for ever: each verifies the next. Of the other documents the newest of each kind is kept:
-- 'roster', 'people', 'config/<target>'.
CREATE TABLE owner_roots (
  version  INTEGER NOT NULL PRIMARY KEY CHECK (version > 0),
  envelope BLOB    NOT NULL
) STRICT;

CREATE TABLE documents (
  kind     TEXT    NOT NULL PRIMARY KEY,
  envelope BLOB    NOT NULL,
  stored   INTEGER NOT NULL
) STRICT;

-- claim is the SHA-256 of the claim id, which is a secret between the claim's maker and the box.
CREATE TABLE enrolments (
  claim     BLOB    NOT NULL PRIMARY KEY CHECK (length(claim) = 32),
  tls_spki  BLOB    NOT NULL,
  sign_spki BLOB    NOT NULL,
  nonce     BLOB    NOT NULL,
  proof     BLOB    NOT NULL,
  received  INTEGER NOT NULL
) STRICT;
