package audit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// faulty is the real disk with scripted faults.
type faulty struct {
	directory
	mu    sync.Mutex
	fails func(op string) fault
	count map[string]int
}

type fault int

const (
	works fault = iota
	failed
	persisted // reports failure, but did it
	torn      // half of it
)

var errDisk = fmt.Errorf("scripted: %w", syscall.EIO)

func (f *faulty) next(op string) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := works
	if f.fails != nil {
		kind = f.fails(op)
	}
	if kind != works {
		f.count[fmt.Sprint(op, " ", [...]string{"", "failed", "persisted", "torn"}[kind])]++
	}
	return kind
}

func (f *faulty) do(op string, whole, half func() error) error {
	switch f.next(op) {
	case works:
		return whole()
	case persisted:
		return errors.Join(whole(), errDisk)
	case torn:
		return errors.Join(half(), errDisk)
	}
	return errDisk
}

func nothing() error { return nil }

func (f *faulty) open(name string) (file, error) {
	if f.next("open") != works {
		return nil, errDisk
	}
	under, err := f.directory.open(name)
	return &faultyFile{under, f, name}, err
}

func (f *faulty) write(name string, b []byte) error {
	return f.do("write "+name, func() error { return f.directory.write(name, b) }, nothing)
}

func (f *faulty) reserve(name string, n int64) error {
	return f.do("reserve", func() error { return f.directory.reserve(name, n) },
		func() error { return f.directory.reserve(name, n/2) })
}

func (f *faulty) remove(name string) error {
	return f.do("remove", func() error { return f.directory.remove(name) }, nothing)
}

type faultyFile struct {
	file
	f    *faulty
	name string
}

func (f *faultyFile) append(p []byte) error {
	return f.f.do("append "+f.name, func() error { return f.file.append(p) },
		func() error { return f.file.append(p[:len(p)/2]) })
}

func (f *faultyFile) truncate(n int64) error {
	return f.f.do("truncate", func() error { return f.file.truncate(n) }, nothing)
}

// After every kind of fault in every operation: what was permitted is in the
// log, what was closed is in the log in the end, the log verifies at each step,
// and nothing stands there twice.
func TestFaults(t *testing.T) {
	k := newKey(t)
	count := map[string]int{}
	ops := []string{"append records", "append hashes", "write checkpoint", "open", "truncate", "reserve", "remove"}
	for _, op := range ops {
		for _, kind := range []fault{failed, persisted, torn} {
			for _, times := range []int{1, 4} {
				name := fmt.Sprintf("%s/%d/%d", op, kind, times)
				dir := t.TempDir()
				disk := &faulty{directory: directory(dir), count: count}
				c := k.config(dir)
				l, err := open(c, disk)
				if err != nil {
					t.Fatal(err)
				}
				left, removed := times, false
				disk.fails = func(at string) fault {
					removed = removed || at == "remove"
					// A truncate or an open happens only in a recovery, so
					// something before must have failed.
					if (op == "truncate" || op == "open") && at == "append records" && left == times {
						return torn
					}
					if op == "remove" && strings.HasPrefix(at, "append") {
						return failed
					}
					if op == "reserve" && at == "append records" && !removed {
						return failed // until the reserve is given up
					}
					if at != op || left <= 0 {
						return works
					}
					left--
					return kind
				}
				permitted, refused := map[string]bool{}, 0
				var closings []string
				for i := range 4 {
					object := fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), i)
					if err := l.Permit(entry(SessionStart, object)); err == nil {
						permitted[object] = true
					} else if refused++; !errors.Is(err, ErrUnwritten) {
						t.Errorf("%s: %v", name, err)
					}
					if err := l.Record(entry(SessionEnd, object)); err != nil && !errors.Is(err, ErrWaiting) {
						t.Errorf("%s: %v", name, err)
					}
					closings = append(closings, object)
					invariant(t, name, dir, k, permitted)
				}
				disk.fails = nil
				if err := l.Record(entry(Alarm, "last")); err != nil {
					t.Errorf("%s: the disk is well again: %v", name, err)
				}
				if err := l.Permit(entry(Admit, "after")); err != nil {
					t.Errorf("%s: the disk is well again: %v", name, err)
				}
				if err := l.Close(); err != nil {
					t.Errorf("%s: close: %v", name, err)
				}
				b := readAll(t, dir)[fileRecords]
				for _, object := range closings {
					if n := bytes.Count(b, []byte(`"session.end","object":"`+object+`"`)); n != 1 {
						t.Errorf("%s: closing of %s stands %d times", name, object, n)
					}
				}
				if l = mustOpen(t, c); l.Tree().N == 0 {
					t.Errorf("%s: empty after reopening", name)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	t.Log("faults:", count)
	for _, op := range ops {
		for _, kind := range []string{"failed", "persisted", "torn"} {
			if count[op+" "+kind] == 0 {
				t.Errorf("never: %s %s", op, kind)
			}
		}
	}
}

func invariant(t *testing.T, name, dir string, k key, permitted map[string]bool) {
	t.Helper()
	if _, err := Verify(dir, k.text); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	b := readAll(t, dir)[fileRecords]
	for object := range permitted {
		if n := bytes.Count(b, []byte(`"session.start","object":"`+object+`"`)); n != 1 {
			t.Errorf("%s: permitted %s stands %d times", name, object, n)
		}
	}
}

// quota is a disk that is full at a number of bytes.
type quota struct {
	directory
	left int64
}

func (q *quota) take(n int64) error {
	if n > q.left {
		return fmt.Errorf("scripted: %w", syscall.ENOSPC)
	}
	q.left -= n
	return nil
}

func (q *quota) open(name string) (file, error) {
	f, err := q.directory.open(name)
	return &quotaFile{f, q}, err
}

func (q *quota) reserve(name string, n int64) error {
	if _, err := q.directory.read(name); err == nil {
		return nil
	}
	if err := q.take(n); err != nil {
		return err
	}
	return q.directory.reserve(name, n)
}

func (q *quota) remove(name string) error {
	b, err := q.directory.read(name)
	if err == nil {
		q.left += int64(len(b))
	}
	return errors.Join(err, q.directory.remove(name))
}

type quotaFile struct {
	file
	q *quota
}

func (f *quotaFile) append(p []byte) error {
	if err := f.q.take(int64(len(p))); err != nil {
		return errors.Join(f.file.append(p[:min(f.q.left, int64(len(p)/2))]), err)
	}
	return f.file.append(p)
}

func TestFullDisk(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	disk := &quota{directory: directory(dir), left: reserveSize + 2000}
	l, err := open(k.config(dir), disk)
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for l.Permit(entry(SessionStart, fmt.Sprint("s-", opened))) == nil {
		opened++
	}
	if opened == 0 {
		t.Fatal("nothing could be opened")
	}
	for i := range 100 {
		if err := l.Record(entry(SessionEnd, fmt.Sprint("s-", i))); err != nil {
			t.Fatal("a closing action on a full disk:", err)
		}
	}
	if err := l.Permit(entry(Unmute, "mic")); err != nil {
		t.Error("unmute in a running session on a full disk:", err)
	}
	if err := l.Permit(entry(SessionStart, "late")); !errors.Is(err, ErrUnwritten) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("opened while the reserve is in use: %v", err)
	}
	if bytes.Contains(readAll(t, dir)[fileRecords], []byte(`"late"`)) {
		t.Error("a refused action stands in the log")
	}
	disk.left += 2 * reserveSize
	if err := l.Permit(entry(SessionStart, "again")); err != nil {
		t.Error("there is space again:", err)
	}
	r, err := Verify(dir, k.text)
	if err != nil || r.Entries != int64(opened)+102 {
		t.Errorf("%d entries, %v; %d were opened", r.Entries, err, opened)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	disk := &faulty{directory: directory(dir), count: map[string]int{}}
	l, err := open(k.config(dir), disk)
	if err != nil {
		t.Fatal(err)
	}
	disk.fails = func(string) fault { return failed }
	for i := range maxWaiting + 10 {
		if err := l.Record(entry(Mute, "mic")); !errors.Is(err, ErrWaiting) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if len(l.waiting) != maxWaiting {
		t.Errorf("%d entries wait", len(l.waiting))
	}
	disk.fails = nil
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if r, err := Verify(dir, k.text); err != nil || r.Entries != maxWaiting {
		t.Errorf("%+v, %v", r, err)
	}
}
