// Package audit is the append-only log of what happened in a room.
//
// The log is a Merkle tree (RFC 6962, by golang.org/x/mod/sumdb/tlog) over JSON
// lines, with a checkpoint (C2SP tlog-checkpoint, a signed note) after every
// entry. Whoever holds an old checkpoint can prove that nothing before it was
// changed or taken away. It does not stop the owner of the key from signing
// another history that nobody has seen a checkpoint of: that needs witnesses
// (not yet: C2SP tlog-cosignature by the hub).
//
// Files in the directory:
//
//	records     one JSON entry per line; a leaf is a line without its "\n"
//	hashes      the tree's stored hashes, 32 bytes each (tlog.StoredHashes)
//	checkpoint  origin, size, root hash, signature; replaced atomically
//	reserve     1 MiB that exists only to be given up when the disk is full
//	lock        held by the process that writes
//
// An entry is written in three steps: records, hashes, checkpoint. After a crash
// before the first step is whole, the torn line is cut: nobody was told that it
// stands. After the first step the entry stands, and opening the log completes
// the other steps and adds an audit.recovered entry. A running log that meets an
// error takes the same way: it closes its files, opens them again through the
// same code, and tries once more.
//
// Opening refuses a log that recovery cannot explain: fewer records than the
// checkpoint covers, other records, or more than one beyond it.
//
// What a failed entry means is decided by the action's class (see Class):
// opening actions are refused, closing actions always happen. Their entries use
// the reserve, and when even that fails they wait in memory for the next success;
// nothing is opened while one waits or while the reserve is not whole.
package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/alcove-room/alcove/daemon/durable"
)

// Names of the files.
const (
	fileRecords    = "records"
	fileHashes     = "hashes"
	fileCheckpoint = "checkpoint"
	fileReserve    = "reserve"
	fileLock       = "lock"
)

// reserveSize holds some four thousand closing entries.
const reserveSize = 1 << 20

// maxWaiting bounds the closing entries in memory. More are counted, not kept.
const maxWaiting = 256

// Errors that callers tell apart.
var (
	// ErrUnwritten: the entry is not in the log; do not do it.
	ErrUnwritten = errors.New("audit entry could not be written, so this is refused")
	// ErrWaiting: the action happens, its entry waits in memory.
	ErrWaiting = errors.New("audit entry could not be written yet")
	// ErrTampered: the files do not agree with the signed checkpoint.
	ErrTampered = errors.New("audit log does not match its checkpoint")
	// ErrLocked: another process writes this log.
	ErrLocked = errors.New("audit log is in use by another process")
	// ErrClass: the action does not belong to this method.
	ErrClass = errors.New("action of another class")
)

// Config is what a log needs.
type Config struct {
	Dir    string
	Signer note.Signer   // its name is the log's origin
	Verify note.Verifier // of the same key: the log reads its own checkpoint
	Now    func() time.Time
	Log    *slog.Logger
}

// Log is an open log. Its methods may be called from several goroutines; each
// returns when its entry is durable, or has failed.
type Log struct {
	config  Config
	storage storage
	lock    *os.File
	metrics metrics

	mu      sync.Mutex // owns everything below
	records file
	hashes  file
	tree    tlog.Tree
	whole   bool    // records and hashes can be trusted; false after an error
	waiting []Entry // closing entries that are not written yet, oldest first
	ready   bool    // the reserve is whole
	closed  bool
}

// Open opens the log in dir, made when missing, and recovers it.
func Open(c Config) (*Log, error) {
	if err := durable.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return open(c, directory(c.Dir))
}

func open(c Config, s storage) (*Log, error) {
	lock, err := takeLock(directory(c.Dir).path(fileLock))
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l := &Log{config: c, storage: s, lock: lock, metrics: newMetrics()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.startLocked(); err != nil {
		return nil, fmt.Errorf("open audit log %s: %w", c.Dir, errors.Join(err, lock.Close()))
	}
	return l, nil
}

func (l *Log) startLocked() error {
	found, err := l.recoverLocked()
	if err != nil && !errors.Is(err, ErrTampered) {
		// A full disk must not keep a log closed that holds space for this case.
		l.giveUpReserveLocked()
		found, err = l.recoverLocked()
	}
	if err != nil {
		return err
	}
	if err := l.fillReserveLocked(); err != nil {
		l.config.Log.Error("audit reserve is missing, nothing can be opened", "err", err)
	}
	if found.repaired() {
		l.config.Log.Warn("audit log recovered", "completed", found.completed, "cut_bytes", found.cut)
		e := Entry{Actor: "device", Role: "device", Action: Recovered, Outcome: OK}
		if err := l.recordLocked(e); err != nil {
			l.config.Log.Error("audit entry waits", "err", err)
		}
	}
	return nil
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(ErrLocked, f.Close())
	}
	return f, nil
}

// Close writes what still waits and gives the log free.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	err := l.flushLocked()
	l.closed = true
	return errors.Join(err, l.closeFilesLocked(), l.lock.Close())
}

func (l *Log) closeFilesLocked() error {
	var errs []error
	for _, f := range []file{l.records, l.hashes} {
		if f != nil {
			errs = append(errs, f.close())
		}
	}
	l.records, l.hashes, l.whole = nil, nil, false
	return errors.Join(errs...)
}

// Tree is the size and root of what is written and signed.
func (l *Log) Tree() tlog.Tree {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree
}

// Metrics are the log's collectors.
func (l *Log) Metrics() []prometheus.Collector { return l.metrics.collectors() }

// checkpoint is the signed note over a tree.
func (l *Log) checkpoint(t tlog.Tree) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", l.config.Signer.Name(), t.N, base64.StdEncoding.EncodeToString(t.Hash[:]))
	return note.Sign(&note.Note{Text: text}, l.config.Signer)
}

// openCheckpoint verifies a checkpoint: C2SP tlog-checkpoint without extension
// lines.
func openCheckpoint(msg []byte, v note.Verifier) (tlog.Tree, error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("%w: checkpoint: %w", ErrTampered, err)
	}
	// One checkpoint has one spelling: note itself ignores the unused bits at the
	// end of a signature's base64.
	for _, sig := range n.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return tlog.Tree{}, fmt.Errorf("%w: checkpoint: signature: %w", ErrTampered, err)
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != v.Name() || lines[3] != "" {
		return tlog.Tree{}, fmt.Errorf("%w: checkpoint of another log or form", ErrTampered)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("%w: checkpoint with size %.20q", ErrTampered, lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("%w: checkpoint: %w", ErrTampered, err)
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// history is the stored hashes of a tree in memory.
type history []tlog.Hash

// ReadHashes is tlog.HashReader.
func (h history) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(h)) {
			return nil, fmt.Errorf("hash %d of %d", x, len(h))
		}
		out[i] = h[x]
	}
	return out, nil
}

// grow adds a leaf.
func (h *history) grow(n int64, leaf []byte) error {
	more, err := tlog.StoredHashes(n, leaf, *h)
	if err != nil {
		return err
	}
	*h = append(*h, more...)
	return nil
}

func (h history) bytes() []byte {
	var b bytes.Buffer
	for _, x := range h {
		b.Write(x[:])
	}
	return b.Bytes()
}
