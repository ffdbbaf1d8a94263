-- People whom the hub lets sign in. subject is the pseudonym of the clinic's signed people document; handle is what an
-- authenticator keeps instead of it (WebAuthn Level 3, 5.4.3). roles are separated by one space.
CREATE TABLE people (
  subject TEXT    NOT NULL PRIMARY KEY,
  handle  BLOB    NOT NULL UNIQUE CHECK (length(handle) = 32),
  name    TEXT    NOT NULL,
  roles   TEXT    NOT NULL,
  created INTEGER NOT NULL
) STRICT;

-- record is go-webauthn's credential in JSON: public key, flags, counter.
CREATE TABLE passkeys (
  id      BLOB    NOT NULL PRIMARY KEY,
  subject TEXT    NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
  rp_id   TEXT    NOT NULL,
  record  BLOB    NOT NULL,
  created INTEGER NOT NULL
) STRICT;
CREATE INDEX passkeys_by_person ON passkeys (subject, created);

-- One living registration for each person; hash is the SHA-256 of its token.
CREATE TABLE registrations (
  hash    BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  subject TEXT    NOT NULL UNIQUE REFERENCES people (subject) ON DELETE CASCADE,
  expires INTEGER NOT NULL
) STRICT;

-- last is the newest time step that was used (RFC 6238, 5.2).
CREATE TABLE totp (
  subject TEXT    NOT NULL PRIMARY KEY REFERENCES people (subject) ON DELETE CASCADE,
  secret  BLOB    NOT NULL CHECK (length(secret) >= 20),
  last    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE recovery_codes (
  subject TEXT    NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
  hash    BLOB    NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (subject, hash)
) STRICT;

-- hash is Argon2id of the PIN and salt. tries counts what was tried since the last success.
CREATE TABLE pins (
  subject TEXT    NOT NULL PRIMARY KEY REFERENCES people (subject) ON DELETE CASCADE,
  salt    BLOB    NOT NULL CHECK (length(salt) = 16),
  hash    BLOB    NOT NULL CHECK (length(hash) = 32),
  tries   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Which person a participant of a session is.
CREATE TABLE visits (
  participant TEXT NOT NULL PRIMARY KEY REFERENCES participants (id) ON DELETE CASCADE,
  subject     TEXT NOT NULL REFERENCES people (subject) ON DELETE CASCADE
) STRICT;

-- hash is the SHA-256 of the sign-in's token.
CREATE TABLE sign_ins (
  hash    BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  subject TEXT    NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
  site    TEXT    NOT NULL,
  method  TEXT    NOT NULL,
  level   INTEGER NOT NULL CHECK (level BETWEEN 1 AND 3),
  at      INTEGER NOT NULL,
  seen    INTEGER NOT NULL
) STRICT;
CREATE INDEX sign_ins_by_person ON sign_ins (subject);

-- Browsers that somebody has signed in with; hash is the SHA-256 of a cookie that gives no right by itself.
CREATE TABLE known_browsers (
  subject TEXT    NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
  hash    BLOB    NOT NULL CHECK (length(hash) = 32),
  created INTEGER NOT NULL,
  PRIMARY KEY (subject, hash)
) STRICT;
CREATE INDEX known_browsers_by_hash ON known_browsers (hash);
