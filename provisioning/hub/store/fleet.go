package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/fleet"
)

var _ fleet.Store = (*Store)(nil)

// OwnerRoots implements fleet.Store.
func (s *Store) OwnerRoots(ctx context.Context) ([][]byte, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT envelope FROM owner_roots ORDER BY version`)
	if err != nil {
		return nil, fmt.Errorf("read owner roots: %w", err)
	}
	defer rows.Close()
	var list [][]byte
	for rows.Next() {
		var envelope []byte
		if err := rows.Scan(&envelope); err != nil {
			return nil, fmt.Errorf("read owner roots: %w", err)
		}
		list = append(list, envelope)
	}
	return list, rows.Err()
}

// AddOwnerRoot implements fleet.Store.
func (s *Store) AddOwnerRoot(ctx context.Context, version uint64, envelope []byte) error {
	res, err := s.db.ExecContext(ctx, `INSERT INTO owner_roots (version, envelope) VALUES (?,?) ON CONFLICT DO NOTHING`,
		int64(version), envelope)
	if err := changed(res, err, fleet.ErrExists); err != nil {
		return fmt.Errorf("store owner root: %w", err)
	}
	return nil
}

// Documents implements fleet.Store.
func (s *Store) Documents(ctx context.Context) (map[string][]byte, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT kind, envelope FROM documents ORDER BY kind`)
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	defer rows.Close()
	list := make(map[string][]byte)
	for rows.Next() {
		var kind string
		var envelope []byte
		if err := rows.Scan(&kind, &envelope); err != nil {
			return nil, fmt.Errorf("read documents: %w", err)
		}
		list[kind] = envelope
	}
	return list, rows.Err()
}

// PutDocument implements fleet.Store.
func (s *Store) PutDocument(ctx context.Context, kind string, envelope []byte, t time.Time) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO documents (kind, envelope, stored) VALUES (?,?,?)
		ON CONFLICT (kind) DO UPDATE SET envelope = excluded.envelope, stored = excluded.stored`, kind, envelope, millis(t))
	if err != nil {
		return fmt.Errorf("store document: %w", err)
	}
	return nil
}

// AddEnrolment implements fleet.Store.
func (s *Store) AddEnrolment(ctx context.Context, c fleet.Claim, e fleet.Enrolment) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO enrolments (claim, tls_spki, sign_spki, nonce, proof, received)
			VALUES (?,?,?,?,?,?) ON CONFLICT DO NOTHING`, c[:], e.TLSKey, e.SignKey, e.Nonce, e.Proof, millis(e.Received))
		err = changed(res, err, fleet.ErrExists)
		if !errors.Is(err, fleet.ErrExists) {
			return err
		}
		had, err := scanEnrolment(tx.QueryRowContext(ctx, enrolmentQuery, c[:]))
		if err != nil {
			return err
		}
		if !bytes.Equal(had.TLSKey, e.TLSKey) || !bytes.Equal(had.SignKey, e.SignKey) ||
			!bytes.Equal(had.Nonce, e.Nonce) || !bytes.Equal(had.Proof, e.Proof) {
			return fleet.ErrExists
		}
		return nil
	})
}

const enrolmentQuery = `SELECT tls_spki, sign_spki, nonce, proof, received FROM enrolments WHERE claim = ?`

// Enrolment implements fleet.Store.
func (s *Store) Enrolment(ctx context.Context, c fleet.Claim) (fleet.Enrolment, error) {
	return scanEnrolment(s.db.QueryRowContext(ctx, enrolmentQuery, c[:]))
}

func scanEnrolment(row *sql.Row) (fleet.Enrolment, error) {
	var e fleet.Enrolment
	var received int64
	err := row.Scan(&e.TLSKey, &e.SignKey, &e.Nonce, &e.Proof, &received)
	if errors.Is(err, sql.ErrNoRows) {
		return e, fleet.ErrNotFound
	}
	if err != nil {
		return e, fmt.Errorf("read enrolment: %w", err)
	}
	e.Received = moment(received)
	return e, nil
}

// SweepEnrolments implements fleet.Store.
func (s *Store) SweepEnrolments(ctx context.Context, t time.Time) (int, error) {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM enrolments WHERE received < ?`, millis(t)); err != nil {
		return 0, fmt.Errorf("sweep enrolments: %w", err)
	}
	var n int
	if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM enrolments`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count enrolments: %w", err)
	}
	return n, nil
}
