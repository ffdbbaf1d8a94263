package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

// Open implements sessions.Store.
func (s *Store) Open(ctx context.Context, o sessions.Opening, t time.Time) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM admissions WHERE media_room IN
			(SELECT media_room FROM openings WHERE sid = ?)`, o.SID[:])
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE openings SET closed = ? WHERE sid = ? AND closed IS NULL`, millis(t), o.SID[:])
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO openings (media_room, sid, d, opened) VALUES (?,?,?,?)`,
			o.MediaRoom, o.SID[:], o.D[:], millis(t))
		return err
	})
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	return nil
}

// Openings implements sessions.Store.
func (s *Store) Openings(ctx context.Context) ([]sessions.Opening, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT o.media_room, o.sid, o.d, a.d, a.participant FROM openings o
		LEFT JOIN admissions a USING (media_room) WHERE o.closed IS NULL ORDER BY o.opened, o.media_room, a.admitted`)
	if err != nil {
		return nil, fmt.Errorf("read openings: %w", err)
	}
	defer rows.Close()
	var list []sessions.Opening
	for rows.Next() {
		var o sessions.Opening
		var sid, d, admitted []byte
		var participant sql.NullString
		if err := rows.Scan(&o.MediaRoom, &sid, &d, &admitted, &participant); err != nil {
			return nil, fmt.Errorf("read openings: %w", err)
		}
		copy(o.SID[:], sid)
		copy(o.D[:], d)
		if len(list) == 0 || list[len(list)-1].MediaRoom != o.MediaRoom {
			list = append(list, o)
		}
		if participant.Valid {
			last := &list[len(list)-1]
			last.Admitted = append(last.Admitted, sessions.Admission{D: sessions.D(admitted), Participant: participant.String})
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read openings: %w", err)
	}
	return list, nil
}

// Admit implements sessions.Store.
func (s *Store) Admit(ctx context.Context, mediaRoom string, a sessions.Admission, t time.Time) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM admissions WHERE media_room = ? AND participant = ?`, mediaRoom, a.Participant)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO admissions (media_room, d, participant, admitted) VALUES (?,?,?,?)`,
			mediaRoom, a.D[:], a.Participant, millis(t))
		return err
	})
	if err != nil {
		return fmt.Errorf("admit: %w", err)
	}
	return nil
}

// Unadmit implements sessions.Store.
func (s *Store) Unadmit(ctx context.Context, mediaRoom string, d sessions.D) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM admissions WHERE media_room = ? AND d = ?`, mediaRoom, d[:])
	if err != nil {
		return fmt.Errorf("end admission: %w", err)
	}
	return nil
}

// ClosedRooms implements sessions.Store.
func (s *Store) ClosedRooms(ctx context.Context) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT media_room FROM openings WHERE closed IS NOT NULL ORDER BY closed LIMIT 100`)
	if err != nil {
		return nil, fmt.Errorf("read closed rooms: %w", err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read closed rooms: %w", err)
		}
		list = append(list, name)
	}
	return list, rows.Err()
}

// ForgetRoom implements sessions.Store.
func (s *Store) ForgetRoom(ctx context.Context, mediaRoom string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM openings WHERE media_room = ? AND closed IS NOT NULL`, mediaRoom)
	if err != nil {
		return fmt.Errorf("forget room: %w", err)
	}
	return nil
}
