package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/people"
)

var _ people.Store = (*Store)(nil)

// maxBrowsers is how many known browsers a person has; the oldest is forgotten first.
const maxBrowsers = 20

// taken turns "nothing inserted" into ErrExists.
func taken(res sql.Result, err error) error { return changed(res, err, people.ErrExists) }

func missing(res sql.Result, err error) error { return changed(res, err, people.ErrNotFound) }

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = people.ErrNotFound
	}
	return fmt.Errorf("%s: %w", what, err)
}

func joinRoles(roles []people.Role) string {
	var list []string
	for _, r := range roles {
		list = append(list, string(r))
	}
	return strings.Join(list, " ")
}

func splitRoles(s string) []people.Role {
	var list []people.Role
	for _, r := range strings.Fields(s) {
		list = append(list, people.Role(r))
	}
	return list
}

// AddPerson implements people.Store.
func (s *Store) AddPerson(ctx context.Context, p people.Person) error {
	return wrap("add person", taken(s.db.ExecContext(ctx,
		`INSERT INTO people (subject, handle, name, roles, created) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`,
		p.Subject, p.Handle, p.Name, joinRoles(p.Roles), millis(p.Created))))
}

// PutPerson implements people.Store.
func (s *Store) PutPerson(ctx context.Context, p people.Person) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO people (subject, handle, name, roles, created) VALUES (?,?,?,?,?)
		ON CONFLICT (subject) DO UPDATE SET name = excluded.name, roles = excluded.roles`,
		p.Subject, p.Handle, p.Name, joinRoles(p.Roles), millis(p.Created))
	return wrap("put person", err)
}

// RemovePerson implements people.Store.
func (s *Store) RemovePerson(ctx context.Context, subject string) error {
	return wrap("remove person", missing(s.db.ExecContext(ctx, `DELETE FROM people WHERE subject = ?`, subject)))
}

// Person implements people.Store.
func (s *Store) Person(ctx context.Context, subject string) (people.Person, error) {
	return one(s.people(ctx, `WHERE p.subject = ?`, subject))
}

// PersonByHandle implements people.Store.
func (s *Store) PersonByHandle(ctx context.Context, handle []byte) (people.Person, error) {
	return one(s.people(ctx, `WHERE p.handle = ?`, handle))
}

// People implements people.Store.
func (s *Store) People(ctx context.Context) ([]people.Person, error) {
	return s.people(ctx, `ORDER BY p.subject`)
}

func one(list []people.Person, err error) (people.Person, error) {
	if err != nil {
		return people.Person{}, err
	}
	if len(list) == 0 {
		return people.Person{}, people.ErrNotFound
	}
	return list[0], nil
}

func (s *Store) people(ctx context.Context, where string, args ...any) ([]people.Person, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT p.subject, p.handle, p.name, p.roles, p.created,
		EXISTS (SELECT 1 FROM totp t WHERE t.subject = p.subject), i.tries
		FROM people p LEFT JOIN pins i ON i.subject = p.subject `+where, args...)
	if err != nil {
		return nil, wrap("read people", err)
	}
	defer rows.Close()
	var list []people.Person
	for rows.Next() {
		var p people.Person
		var roles string
		var created int64
		var tries sql.NullInt64
		if err := rows.Scan(&p.Subject, &p.Handle, &p.Name, &roles, &created, &p.TOTP, &tries); err != nil {
			return nil, wrap("read people", err)
		}
		p.Roles, p.Created = splitRoles(roles), moment(created)
		p.PIN, p.PINTries = tries.Valid, int(tries.Int64)
		list = append(list, p)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, wrap("read people", err)
	}
	for i := range list {
		if list[i].Passkeys, err = s.passkeys(ctx, list[i].Subject); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (s *Store) passkeys(ctx context.Context, subject string) ([]people.Passkey, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, rp_id, record, created FROM passkeys WHERE subject = ? ORDER BY created, id`, subject)
	if err != nil {
		return nil, wrap("read passkeys", err)
	}
	defer rows.Close()
	var list []people.Passkey
	for rows.Next() {
		var k people.Passkey
		var created int64
		if err := rows.Scan(&k.ID, &k.RPID, &k.Record, &created); err != nil {
			return nil, wrap("read passkeys", err)
		}
		k.Created = moment(created)
		list = append(list, k)
	}
	return list, wrap("read passkeys", rows.Err())
}

// SetRegistration implements people.Store.
func (s *Store) SetRegistration(ctx context.Context, subject string, hash people.Hash, expires time.Time) error {
	return wrap("set registration", s.tx(ctx, func(tx *sql.Tx) error {
		return setRegistration(ctx, tx, subject, hash, expires)
	}))
}

func setRegistration(ctx context.Context, tx *sql.Tx, subject string, hash people.Hash, expires time.Time) error {
	return missing(tx.ExecContext(ctx, `INSERT INTO registrations (hash, subject, expires)
		SELECT ?, subject, ? FROM people WHERE subject = ?
		ON CONFLICT (subject) DO UPDATE SET hash = excluded.hash, expires = excluded.expires`,
		hash[:], millis(expires), subject))
}

// Registration implements people.Store.
func (s *Store) Registration(ctx context.Context, hash people.Hash, t time.Time) (subject string, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT subject FROM registrations WHERE hash = ? AND expires > ?`, hash[:], millis(t)).Scan(&subject)
	return subject, wrap("read registration", err)
}

// AddPasskey implements people.Store.
func (s *Store) AddPasskey(ctx context.Context, registration people.Hash, k people.Passkey, t time.Time) error {
	return wrap("add passkey", s.tx(ctx, func(tx *sql.Tx) error {
		var subject string
		err := tx.QueryRowContext(ctx, `DELETE FROM registrations WHERE hash = ? AND expires > ? RETURNING subject`,
			registration[:], millis(t)).Scan(&subject)
		if err != nil {
			return err
		}
		return taken(tx.ExecContext(ctx, `INSERT INTO passkeys (id, subject, rp_id, record, created) VALUES (?,?,?,?,?)
			ON CONFLICT DO NOTHING`, k.ID, subject, k.RPID, k.Record, millis(t)))
	}))
}

// UpdatePasskey implements people.Store.
func (s *Store) UpdatePasskey(ctx context.Context, id, record []byte) error {
	return wrap("update passkey", missing(s.db.ExecContext(ctx, `UPDATE passkeys SET record = ? WHERE id = ?`, record, id)))
}

// SetTOTP implements people.Store.
func (s *Store) SetTOTP(ctx context.Context, subject string, secret []byte) error {
	return wrap("set code generator", missing(s.db.ExecContext(ctx, `INSERT INTO totp (subject, secret)
		SELECT subject, ? FROM people WHERE subject = ?
		ON CONFLICT (subject) DO UPDATE SET secret = excluded.secret, last = 0`, secret, subject)))
}

// TOTP implements people.Store.
func (s *Store) TOTP(ctx context.Context, subject string) (secret []byte, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT secret FROM totp WHERE subject = ?`, subject).Scan(&secret)
	return secret, wrap("read code generator", err)
}

// UseTOTP implements people.Store.
func (s *Store) UseTOTP(ctx context.Context, subject string, step int64) error {
	res, err := s.db.ExecContext(ctx, `UPDATE totp SET last = ? WHERE subject = ? AND last < ?`, step, subject, step)
	return wrap("use code", changed(res, err, people.ErrNoMatch))
}

// SetRecovery implements people.Store.
func (s *Store) SetRecovery(ctx context.Context, subject string, codes []people.Hash) error {
	return wrap("set recovery codes", s.tx(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT 1 FROM people WHERE subject = ?`, subject).Scan(&n); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM recovery_codes WHERE subject = ?`, subject); err != nil {
			return err
		}
		for _, c := range codes {
			if _, err := tx.ExecContext(ctx, `INSERT INTO recovery_codes (subject, hash) VALUES (?,?)`, subject, c[:]); err != nil {
				return err
			}
		}
		return nil
	}))
}

// UseRecovery implements people.Store.
func (s *Store) UseRecovery(ctx context.Context, subject string, code, registration people.Hash, expires time.Time) error {
	return wrap("use recovery code", s.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM recovery_codes WHERE subject = ? AND hash = ?`, subject, code[:])
		if err := changed(res, err, people.ErrNoMatch); err != nil {
			return err
		}
		return setRegistration(ctx, tx, subject, registration, expires)
	}))
}

// SetPIN implements people.Store.
func (s *Store) SetPIN(ctx context.Context, subject string, p people.PIN) error {
	return wrap("set PIN", missing(s.db.ExecContext(ctx, `INSERT INTO pins (subject, salt, hash)
		SELECT subject, ?, ? FROM people WHERE subject = ?
		ON CONFLICT (subject) DO UPDATE SET salt = excluded.salt, hash = excluded.hash, tries = 0`,
		p.Salt[:], p.Hash[:], subject)))
}

// TryPIN implements people.Store.
func (s *Store) TryPIN(ctx context.Context, subject string, most int) (p people.PIN, err error) {
	err = s.tx(ctx, func(tx *sql.Tx) error {
		var salt, hash []byte
		var tries int
		if err := tx.QueryRowContext(ctx, `SELECT salt, hash, tries FROM pins WHERE subject = ?`, subject).Scan(&salt, &hash, &tries); err != nil {
			return err
		}
		if tries >= most {
			return people.ErrLocked
		}
		copy(p.Salt[:], salt)
		copy(p.Hash[:], hash)
		_, err := tx.ExecContext(ctx, `UPDATE pins SET tries = tries + 1 WHERE subject = ?`, subject)
		return err
	})
	return p, wrap("try PIN", err)
}

// ClearPIN implements people.Store.
func (s *Store) ClearPIN(ctx context.Context, subject string) error {
	return wrap("clear PIN", missing(s.db.ExecContext(ctx, `UPDATE pins SET tries = 0 WHERE subject = ?`, subject)))
}

// SetVisit implements people.Store.
func (s *Store) SetVisit(ctx context.Context, participant, subject string) error {
	return wrap("set visit", missing(s.db.ExecContext(ctx, `INSERT INTO visits (participant, subject)
		SELECT a.id, p.subject FROM participants a JOIN sessions s ON s.sid = a.sid AND s.ended IS NULL, people p
		WHERE a.id = ? AND p.subject = ?
		ON CONFLICT (participant) DO UPDATE SET subject = excluded.subject`, participant, subject)))
}

// Visit implements people.Store.
func (s *Store) Visit(ctx context.Context, invitation people.Hash) (v people.Visit, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT v.subject, s.room FROM invitations i
		JOIN visits v ON v.participant = i.participant
		JOIN participants a ON a.id = i.participant
		JOIN sessions s ON s.sid = a.sid AND s.ended IS NULL
		WHERE i.hash = ?`, invitation[:]).Scan(&v.Subject, &v.Room)
	return v, wrap("read visit", err)
}

// AddSignIn implements people.Store.
func (s *Store) AddSignIn(ctx context.Context, v people.SignIn, browser people.Hash) error {
	return wrap("add sign-in", s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sign_ins (hash, subject, site, method, level, at, seen) VALUES (?,?,?,?,?,?,?)`,
			v.Hash[:], v.Subject, string(v.Site), string(v.Method), v.Level, millis(v.At), millis(v.Seen))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO known_browsers (subject, hash, created) VALUES (?,?,?)
			ON CONFLICT DO UPDATE SET created = excluded.created`, v.Subject, browser[:], millis(v.At))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM known_browsers WHERE subject = ?1 AND hash NOT IN
			(SELECT hash FROM known_browsers WHERE subject = ?1 ORDER BY created DESC LIMIT ?2)`, v.Subject, maxBrowsers)
		return err
	}))
}

// SignIn implements people.Store.
func (s *Store) SignIn(ctx context.Context, hash people.Hash) (people.SignIn, error) {
	v := people.SignIn{Hash: hash}
	var at, seen int64
	err := s.db.QueryRowContext(ctx, `SELECT subject, site, method, level, at, seen FROM sign_ins WHERE hash = ?`, hash[:]).
		Scan(&v.Subject, &v.Site, &v.Method, &v.Level, &at, &seen)
	v.At, v.Seen = moment(at), moment(seen)
	return v, wrap("read sign-in", err)
}

// Touch implements people.Store.
func (s *Store) Touch(ctx context.Context, hash people.Hash, t time.Time) error {
	_, err := s.db.ExecContext(ctx, `UPDATE sign_ins SET seen = ?1 WHERE hash = ?2 AND seen < ?1`, millis(t), hash[:])
	return wrap("touch sign-in", err)
}

// DropSignIn implements people.Store.
func (s *Store) DropSignIn(ctx context.Context, hash people.Hash) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM sign_ins WHERE hash = ?`, hash[:])
	return wrap("drop sign-in", err)
}

// DropSignIns implements people.Store.
func (s *Store) DropSignIns(ctx context.Context, idle, made time.Time) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM sign_ins WHERE seen <= ? OR at <= ?`, millis(idle), millis(made))
	return wrap("drop sign-ins", err)
}

// BrowserOf implements people.Store.
func (s *Store) BrowserOf(ctx context.Context, subject string, browser people.Hash) (known bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM known_browsers WHERE subject = ? AND hash = ?)`, subject, browser[:]).Scan(&known)
	return known, wrap("read known browsers", err)
}

// BrowserSeen implements people.Store.
func (s *Store) BrowserSeen(ctx context.Context, browser people.Hash) (seen bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM known_browsers WHERE hash = ?)`, browser[:]).Scan(&seen)
	return seen, wrap("read known browsers", err)
}
