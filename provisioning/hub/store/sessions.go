package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

var _ sessions.Store = (*Store)(nil)

func millis(t time.Time) int64 { return t.UnixMilli() }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// AddSession implements sessions.Store.
func (s *Store) AddSession(ctx context.Context, v sessions.Session) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (sid, room, starts, ends, created) VALUES (?,?,?,?,?)`,
			v.SID[:], v.Room, millis(v.Starts), millis(v.Ends), millis(time.Now()))
		if err != nil {
			return err
		}
		for i, p := range v.Participants {
			_, err := tx.ExecContext(ctx, `INSERT INTO participants (id, sid, place, role, name) VALUES (?,?,?,?,?)`,
				p.ID, v.SID[:], i, string(p.Role), p.Name)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add session: %w", err)
	}
	return nil
}

// Session implements sessions.Store.
func (s *Store) Session(ctx context.Context, sid sessions.SID) (sessions.Session, error) {
	list, err := s.sessions(ctx, `WHERE sid = ?`, sid[:])
	if err != nil {
		return sessions.Session{}, err
	}
	if len(list) == 0 {
		return sessions.Session{}, sessions.ErrNotFound
	}
	return list[0], nil
}

// Sessions implements sessions.Store.
func (s *Store) Sessions(ctx context.Context, room string, t time.Time) ([]sessions.Session, error) {
	if room == "" {
		return s.sessions(ctx, `WHERE ended IS NULL AND ends > ? ORDER BY starts, sid`, millis(t))
	}
	return s.sessions(ctx, `WHERE ended IS NULL AND ends > ? AND room = ? ORDER BY starts, sid`, millis(t), room)
}

func (s *Store) sessions(ctx context.Context, where string, args ...any) ([]sessions.Session, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT sid, room, starts, ends, ended, reason FROM sessions `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	defer rows.Close()
	var list []sessions.Session
	for rows.Next() {
		var v sessions.Session
		var sid []byte
		var starts, ends int64
		var ended sql.NullInt64
		if err := rows.Scan(&sid, &v.Room, &starts, &ends, &ended, &v.Reason); err != nil {
			return nil, fmt.Errorf("read sessions: %w", err)
		}
		copy(v.SID[:], sid)
		v.Starts, v.Ends = moment(starts), moment(ends)
		if ended.Valid {
			v.Ended = moment(ended.Int64)
		}
		list = append(list, v)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	for i := range list {
		if list[i].Participants, err = s.participants(ctx, list[i].SID); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (s *Store) participants(ctx context.Context, sid sessions.SID) ([]sessions.Participant, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, role, name FROM participants WHERE sid = ? ORDER BY place`, sid[:])
	if err != nil {
		return nil, fmt.Errorf("read participants: %w", err)
	}
	defer rows.Close()
	var list []sessions.Participant
	for rows.Next() {
		var p sessions.Participant
		var role string
		if err := rows.Scan(&p.ID, &role, &p.Name); err != nil {
			return nil, fmt.Errorf("read participants: %w", err)
		}
		p.Role = people.Role(role)
		list = append(list, p)
	}
	return list, rows.Err()
}

// EndSession implements sessions.Store.
func (s *Store) EndSession(ctx context.Context, sid sessions.SID, t time.Time, reason string) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		for _, q := range []struct {
			text string
			args []any
		}{
			{`UPDATE sessions SET ended = ?, reason = ? WHERE sid = ? AND ended IS NULL`, []any{millis(t), reason, sid[:]}},
			{`DELETE FROM admissions WHERE media_room IN (SELECT media_room FROM openings WHERE sid = ?)`, []any{sid[:]}},
			{`UPDATE openings SET closed = ? WHERE sid = ? AND closed IS NULL`, []any{millis(t), sid[:]}},
			{`DELETE FROM joins WHERE participant IN (SELECT id FROM participants WHERE sid = ?)`, []any{sid[:]}},
		} {
			if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// SetInvitation implements sessions.Store.
func (s *Store) SetInvitation(ctx context.Context, sid sessions.SID, participant string, hash sessions.Hash, t time.Time) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var one int
		err := tx.QueryRowContext(ctx, `SELECT 1 FROM participants p JOIN sessions s USING (sid)
			WHERE p.id = ? AND p.sid = ? AND s.ended IS NULL`, participant, sid[:]).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return sessions.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("set invitation: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM joins WHERE participant = ?`, participant); err != nil {
			return fmt.Errorf("set invitation: %w", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO invitations (hash, participant, created) VALUES (?,?,?)
			ON CONFLICT (participant) DO UPDATE SET hash = excluded.hash, created = excluded.created, used = NULL, browser = NULL`,
			hash[:], participant, millis(t))
		if err != nil {
			return fmt.Errorf("set invitation: %w", err)
		}
		return nil
	})
}

// Invitation implements sessions.Store.
func (s *Store) Invitation(ctx context.Context, hash sessions.Hash) (sessions.Ticket, error) {
	return s.ticket(ctx, `SELECT p.sid, p.id, p.role, p.name, i.browser FROM invitations i
		JOIN participants p ON p.id = i.participant WHERE i.hash = ?`, hash[:])
}

// Bearer implements sessions.Store.
func (s *Store) Bearer(ctx context.Context, bearer sessions.Hash) (sessions.Ticket, error) {
	return s.ticket(ctx, `SELECT p.sid, p.id, p.role, p.name, NULL FROM joins j
		JOIN participants p ON p.id = j.participant WHERE j.hash = ?`, bearer[:])
}

func (s *Store) ticket(ctx context.Context, query string, key []byte) (sessions.Ticket, error) {
	var t sessions.Ticket
	var sid, browser []byte
	var role string
	err := s.db.QueryRowContext(ctx, query, key).Scan(&sid, &t.Participant.ID, &role, &t.Participant.Name, &browser)
	if errors.Is(err, sql.ErrNoRows) {
		return t, sessions.ErrNotFound
	}
	if err != nil {
		return t, fmt.Errorf("read ticket: %w", err)
	}
	t.Participant.Role = people.Role(role)
	if browser != nil {
		t.Used = true
		copy(t.Browser[:], browser)
	}
	var id sessions.SID
	copy(id[:], sid)
	t.Session, err = s.Session(ctx, id)
	return t, err
}

// BrowserKnown implements sessions.Store.
func (s *Store) BrowserKnown(ctx context.Context, browser sessions.Hash) (bool, error) {
	var one int
	err := s.db.QueryRowContext(ctx, `SELECT 1 FROM invitations WHERE browser = ? LIMIT 1`, browser[:]).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up browser: %w", err)
	}
	return true, nil
}

// UseInvitation implements sessions.Store.
func (s *Store) UseInvitation(ctx context.Context, invitation, browser, bearer sessions.Hash, t time.Time) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var participant string
		var bound []byte
		err := tx.QueryRowContext(ctx, `SELECT participant, browser FROM invitations WHERE hash = ?`, invitation[:]).
			Scan(&participant, &bound)
		if errors.Is(err, sql.ErrNoRows) {
			return sessions.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("use invitation: %w", err)
		}
		if bound != nil && sessions.Hash(bound) != browser {
			return sessions.ErrUsed
		}
		if bound == nil {
			_, err := tx.ExecContext(ctx, `UPDATE invitations SET used = ?, browser = ? WHERE hash = ?`,
				millis(t), browser[:], invitation[:])
			if err != nil {
				return fmt.Errorf("use invitation: %w", err)
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO joins (hash, participant, created) VALUES (?,?,?)
			ON CONFLICT (participant) DO UPDATE SET hash = excluded.hash, created = excluded.created`,
			bearer[:], participant, millis(t))
		if err != nil {
			return fmt.Errorf("use invitation: %w", err)
		}
		return nil
	})
}

// DropBearer implements sessions.Store.
func (s *Store) DropBearer(ctx context.Context, participant string) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM joins WHERE participant = ?`, participant); err != nil {
		return fmt.Errorf("drop bearer: %w", err)
	}
	return nil
}
