package audit

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Permit writes the entry of an action that opens something, before the action.
// On an error, which wraps ErrUnwritten, the action must not happen. An entry
// whose write reported failure but reached the disk may stand for an action that
// was then refused; never the other way round.
func (l *Log) Permit(e Entry) error {
	class := e.Action.Class()
	if class != Opening && class != Running {
		return fmt.Errorf("%w: %w: %.40q", ErrUnwritten, ErrClass, e.Action)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.permitLocked(e, class)
	if err != nil {
		l.metrics.refused.Inc()
		return fmt.Errorf("%w: %w", ErrUnwritten, err)
	}
	return nil
}

func (l *Log) permitLocked(e Entry, class Class) error {
	e.Time = l.config.Now().UTC()
	if err := e.validate(); err != nil {
		return err
	}
	if err := l.flushLocked(); err != nil {
		return err
	}
	if class == Running {
		return l.writeReservedLocked(e)
	}
	if err := l.fillReserveLocked(); err != nil {
		return err
	}
	return l.writeLocked(e)
}

// Record writes the entry of an action that closes something. The action always
// happens: an error, which wraps ErrWaiting, tells that the entry is in memory
// and will be written with the next one.
func (l *Log) Record(e Entry) error {
	if e.Action.Class() != Closing {
		return fmt.Errorf("%w: %.40q", ErrClass, e.Action)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recordLocked(e)
}

func (l *Log) recordLocked(e Entry) error {
	e.Time = l.config.Now().UTC()
	if err := e.validate(); err != nil {
		return err
	}
	if len(l.waiting) >= maxWaiting {
		l.metrics.lost.Inc()
		return fmt.Errorf("%w: and %d others wait, this one is lost", ErrWaiting, len(l.waiting))
	}
	l.waiting = append(l.waiting, e)
	if err := l.flushLocked(); err != nil {
		return fmt.Errorf("%w: %w", ErrWaiting, err)
	}
	return nil
}

// flushLocked writes what waits, oldest first.
func (l *Log) flushLocked() error {
	defer func() { l.metrics.waiting.Set(float64(len(l.waiting))) }()
	if l.closed {
		return errors.New("the audit log is closed")
	}
	for len(l.waiting) > 0 {
		if err := l.writeReservedLocked(l.waiting[0]); err != nil {
			return err
		}
		l.waiting = l.waiting[1:]
	}
	return nil
}

// writeReservedLocked gives up the reserve when the entry does not fit without.
func (l *Log) writeReservedLocked(e Entry) error {
	err := l.writeLocked(e)
	if err == nil {
		return nil
	}
	if l.giveUpReserveLocked() {
		return l.writeLocked(e)
	}
	return err
}

// giveUpReserveLocked tells whether there was a reserve to give up.
func (l *Log) giveUpReserveLocked() bool {
	if _, err := l.storage.read(fileReserve); err != nil {
		return false
	}
	l.ready = false
	l.metrics.reserve.Set(0)
	if err := l.storage.remove(fileReserve); err != nil {
		l.config.Log.Error("audit reserve cannot be given up", "err", err)
		return false
	}
	l.config.Log.Error("audit reserve is in use: the disk is full; nothing can be opened until there is space")
	return true
}

func (l *Log) fillReserveLocked() error {
	if l.ready {
		return nil
	}
	if err := l.storage.reserve(fileReserve, reserveSize); err != nil {
		return err
	}
	l.ready = true
	l.metrics.reserve.Set(1)
	return nil
}

// writeLocked appends an entry; after a failure it recovers and tries once more.
func (l *Log) writeLocked(e Entry) error {
	line, err := e.line()
	if err != nil {
		return err
	}
	if l.whole {
		if err = l.appendLocked(line); err == nil {
			l.metrics.entries.WithLabelValues(string(e.Action)).Inc()
			return nil
		}
		l.config.Log.Error("audit entry failed, recovering", "err", err)
	}
	before := l.tree.N
	if _, rerr := l.recoverLocked(); rerr != nil {
		return errors.Join(err, rerr)
	}
	if l.tree.N == before || !l.endsWithLocked(line) { // else: failed, but persisted
		if err := l.appendLocked(line); err != nil {
			return err
		}
	}
	l.metrics.entries.WithLabelValues(string(e.Action)).Inc()
	return nil
}

// appendLocked is the three steps; see the package comment for what a crash
// after each leaves.
func (l *Log) appendLocked(line []byte) error {
	l.whole = false
	if err := l.records.append(line); err != nil {
		return err
	}
	hashes, err := tlog.StoredHashes(l.tree.N, line[:len(line)-1], tlog.HashReaderFunc(l.readHashesLocked))
	if err != nil {
		return err
	}
	if err := l.hashes.append(history(hashes).bytes()); err != nil {
		return err
	}
	next := tlog.Tree{N: l.tree.N + 1}
	if next.Hash, err = tlog.TreeHash(next.N, tlog.HashReaderFunc(l.readHashesLocked)); err != nil {
		return err
	}
	if err := l.signLocked(next); err != nil {
		return err
	}
	l.tree, l.whole = next, true
	return nil
}

func (l *Log) readHashesLocked(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if _, err := l.hashes.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("read hash: %w", err)
		}
	}
	return out, nil
}

func (l *Log) endsWithLocked(line []byte) bool {
	tail := make([]byte, len(line))
	if l.records.size() < int64(len(line)) {
		return false
	}
	_, err := l.records.ReadAt(tail, l.records.size()-int64(len(line)))
	return err == nil && bytes.Equal(tail, line)
}
