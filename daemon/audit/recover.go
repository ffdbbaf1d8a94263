package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/tlog"
)

// findings is what a recovery repaired.
type findings struct {
	completed int64 // whole entries that the checkpoint did not cover yet
	cut       int64 // bytes of a torn entry
}

func (f findings) repaired() bool { return f.completed > 0 || f.cut > 0 }

// recoverLocked brings records, hashes and checkpoint into one state, from
// whatever a crash or an error has left. A crash in it is recovered by it.
func (l *Log) recoverLocked() (findings, error) {
	if err := l.closeFilesLocked(); err != nil {
		l.config.Log.Warn("audit files closed with an error", "err", err)
	}
	signed, err := l.readCheckpointLocked()
	if err != nil {
		return findings{}, err
	}
	if l.records, err = l.storage.open(fileRecords); err != nil {
		return findings{}, err
	}
	if l.hashes, err = l.storage.open(fileHashes); err != nil {
		return findings{}, err
	}
	log, err := scan(io.NewSectionReader(l.records, 0, l.records.size()), signed)
	if err != nil {
		return findings{}, err
	}
	found := findings{completed: log.tree.N - signed.N, cut: l.records.size() - log.bytes}
	if found.completed > 1 {
		return findings{}, fmt.Errorf("%w: %d entries follow it, a crash leaves one at most", ErrTampered, found.completed)
	}
	if found.cut > 0 {
		if err := l.records.truncate(log.bytes); err != nil {
			return findings{}, err
		}
	}
	if err := l.mendHashesLocked(log.hashes.bytes()); err != nil {
		return findings{}, err
	}
	if found.completed > 0 {
		if err := l.signLocked(log.tree); err != nil {
			return findings{}, err
		}
	}
	l.tree, l.whole = log.tree, true
	return found, nil
}

// readCheckpointLocked signs the empty tree in a new directory: from then on a
// missing checkpoint is a missing checkpoint.
func (l *Log) readCheckpointLocked() (tlog.Tree, error) {
	msg, err := l.storage.read(fileCheckpoint)
	if err == nil {
		return openCheckpoint(msg, l.config.Verify)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return tlog.Tree{}, err
	}
	if b, err := l.storage.read(fileRecords); !errors.Is(err, os.ErrNotExist) && (err != nil || len(b) > 0) {
		return tlog.Tree{}, errors.Join(fmt.Errorf("%w: there are records and no checkpoint", ErrTampered), err)
	}
	root, err := tlog.TreeHash(0, history{})
	if err != nil {
		return tlog.Tree{}, err
	}
	empty := tlog.Tree{N: 0, Hash: root}
	return empty, l.signLocked(empty)
}

func (l *Log) signLocked(t tlog.Tree) error {
	msg, err := l.checkpoint(t)
	if err != nil {
		return err
	}
	return l.storage.write(fileCheckpoint, msg)
}

// mendHashesLocked makes the hashes file equal to what the records say: it is
// derived from them, so nothing is lost when it is damaged.
func (l *Log) mendHashesLocked(want []byte) error {
	have := make([]byte, l.hashes.size())
	if _, err := io.ReadFull(io.NewSectionReader(l.hashes, 0, int64(len(have))), have); err != nil {
		return err
	}
	if bytes.HasPrefix(want, have) {
		if len(have) == len(want) {
			return nil
		}
		return l.hashes.append(want[len(have):])
	}
	if !bytes.HasPrefix(have, want) {
		l.config.Log.Warn("audit hashes were damaged and are written again")
	}
	if err := l.hashes.truncate(0); err != nil {
		return err
	}
	if len(want) == 0 {
		return nil
	}
	return l.hashes.append(want)
}

// scanned is what a records file holds.
type scanned struct {
	tree   tlog.Tree
	hashes history
	bytes  int64 // of whole lines
}

// scan hashes all whole lines and demands that the first of them are those which
// the checkpoint covers.
func scan(r io.Reader, signed tlog.Tree) (*scanned, error) {
	s := &scanned{}
	root, err := tlog.TreeHash(0, s.hashes)
	if err != nil {
		return nil, err
	}
	s.tree.Hash = root
	matched := signed == s.tree
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // without its end: torn
		}
		if err != nil {
			return nil, fmt.Errorf("read records: %w", err)
		}
		if err := s.hashes.grow(s.tree.N, line[:len(line)-1]); err != nil {
			return nil, err
		}
		s.tree.N++
		s.bytes += int64(len(line))
		if s.tree.N == signed.N {
			if s.tree.Hash, err = tlog.TreeHash(s.tree.N, s.hashes); err != nil {
				return nil, err
			}
			matched = s.tree == signed
		}
	}
	if s.tree.N < signed.N {
		return nil, fmt.Errorf("%w: %d entries, it covers %d", ErrTampered, s.tree.N, signed.N)
	}
	if !matched {
		return nil, fmt.Errorf("%w: an entry has changed", ErrTampered)
	}
	if s.tree.Hash, err = tlog.TreeHash(s.tree.N, s.hashes); err != nil {
		return nil, err
	}
	return s, nil
}
