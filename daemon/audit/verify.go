package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/alcove-room/alcove/provisioning/document"
)

// Report is what Verify found.
type Report struct {
	Origin   string    `json:"origin"`
	Entries  int64     `json:"entries"` // covered by the checkpoint
	Root     string    `json:"root"`
	First    time.Time `json:"first,omitzero"`
	Last     time.Time `json:"last,omitzero"`
	Unsigned int64     `json:"unsigned"` // entries after the checkpoint: not proven; 1 after a crash, more while the log is written
}

// Verify checks a copy of a log, or a log in use, with nothing but the verifier
// key that NewSigner gave: every entry, the tree, the checkpoint's signature. It
// reads and never writes. Checkpoints that the auditor kept from earlier visits
// prove that nothing before them has changed since.
func Verify(dir, verifierKey string, earlier ...[]byte) (Report, error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: verifier key: %w", err)
	}
	d := directory(dir)
	msg, err := d.read(fileCheckpoint) // before the records: a writer only adds
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	signed, err := openCheckpoint(msg, v)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	records, err := d.read(fileRecords)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	log, err := scan(bytes.NewReader(records), signed)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	for _, e := range earlier {
		if err := log.extends(e, v); err != nil {
			return Report{}, fmt.Errorf("verify audit log: %w", err)
		}
	}
	r := Report{Origin: v.Name(), Entries: signed.N, Root: signed.Hash.String(), Unsigned: log.tree.N - signed.N}
	return r, r.read(records[:log.bytes])
}

func (s *scanned) extends(earlier []byte, v note.Verifier) error {
	old, err := openCheckpoint(earlier, v)
	if err != nil {
		return err
	}
	if old.N > s.tree.N {
		return fmt.Errorf("%w: an earlier one covers %d entries, the log has %d", ErrTampered, old.N, s.tree.N)
	}
	root, err := tlog.TreeHash(old.N, s.hashes)
	if err != nil {
		return err
	}
	if root != old.Hash {
		return fmt.Errorf("%w: entries before %d are not those of an earlier one", ErrTampered, old.N)
	}
	return nil
}

func (r *Report) read(records []byte) error {
	for i, line := range bytes.Split(bytes.TrimSuffix(records, []byte("\n")), []byte("\n")) {
		if len(records) == 0 || int64(i) >= r.Entries {
			return nil
		}
		var e Entry
		if err := document.Decode(line, &e); err != nil {
			return fmt.Errorf("verify audit log: entry %d: %w", i, err)
		}
		if i == 0 {
			r.First = e.Time
		}
		r.Last = e.Time
	}
	return nil
}
