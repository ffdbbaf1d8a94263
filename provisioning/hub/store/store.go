// Package store keeps the hub's state in one SQLite database: sessions, participants, invitations, joins,
// openings, admissions, signed documents, enrolment requests, people and their sign-ins.
//
// A method that returns nil is durable (WAL with synchronous=FULL), and each method is one transaction. Invitations,
// bearers, cookies and claim ids are stored as SHA-256 only, so that whoever reads the file or a copy of it can
// neither join nor enrol; so are recovery codes and the tokens of sign-ins. Two things are worth stealing: the secrets of
// code generators, which must be in clear to be compared with, and PINs, of which there are only a million. Signed documents are stored as the bytes that were verified; the store verifies nothing.
// Names of people are in clear: the file has mode 0600 and belongs to the hub's user.
//
// The interfaces that it implements are sessions.Store, fleet.Store and people.Store.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // driver "sqlite", without C
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is safe for concurrent use.
type Store struct {
	db *sql.DB
}

// ErrNewer is returned for a database that a newer release has written.
var ErrNewer = errors.New("the database was written by a newer release of alcove-hub")

// Open opens or makes the database and brings it to this release's version.
func Open(ctx context.Context, path string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	// _txlock=immediate takes the write lock at BEGIN: two writers wait for each other instead of failing midway.
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: "_txlock=immediate" +
		"&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=foreign_keys(ON)&_pragma=trusted_schema(OFF)&_pragma=secure_delete(ON)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	s := &Store{db: db}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate database: %w", err), db.Close())
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// migrate applies the numbered files that the database has not seen, each in a transaction of its own that also
// raises user_version: a crash between two leaves a database that the same code carries on with.
func (s *Store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	for {
		done, err := s.migrateNext(ctx, names)
		if err != nil || done {
			return err
		}
	}
}

func (s *Store) migrateNext(ctx context.Context, names []string) (done bool, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		if version > len(names) {
			return fmt.Errorf("%w (version %d, this release knows %d)", ErrNewer, version, len(names))
		}
		if version == len(names) {
			done = true
			return nil
		}
		name := names[version]
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		if n, err := strconv.Atoi(number); err != nil || n != version+1 {
			return fmt.Errorf("migration %s is not number %d", name, version+1)
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
		_, err = tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(version+1))
		return err
	})
	return done, err
}

func (s *Store) tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := do(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// changed turns "no row" into the given error.
func changed(res sql.Result, err, none error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return none
	}
	return nil
}
