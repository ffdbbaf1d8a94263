package durable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, perm := range []os.FileMode{0o600, 0o644, 0o400} {
		want := []byte(fmt.Sprint("content ", perm))
		if err := WriteFile(path, want, perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q, %v", got, err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != perm {
			t.Errorf("mode %v, want %v", st.Mode(), perm)
		}
	}
	only(t, dir, "f")
}

// only fails when a temporary file was left.
func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("directory has %v, want %v", got, want)
	}
}

func TestWriteFileFailsAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "taken", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if err := WriteFile(filepath.Join(dir, "missing", "f"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	only(t, dir, "taken")
}

// A reader that runs beside writers sees one of the contents, never a mixture.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<12)}
	if err := WriteFile(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	for _, c := range contents {
		writing.Go(func() {
			for range 50 {
				if err := WriteFile(path, c, 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[byte]int{}
	for range 500 {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, contents[0]) && !bytes.Equal(b, contents[1]) {
			t.Fatalf("%d bytes that nobody wrote", len(b))
		}
		seen[b[0]]++
	}
	writing.Wait()
	t.Log("seen:", seen)
}

func TestRenameRemoveMkdir(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b")
	if err := MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(deep, 0o700); err != nil {
		t.Errorf("second time: %v", err)
	}
	from, to := filepath.Join(dir, "from"), filepath.Join(deep, "to")
	if err := WriteFile(from, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rename(from, to); err != nil {
		t.Fatal(err)
	}
	only(t, deep, "to")
	if err := MkdirAll(filepath.Join(to, "c"), 0o700); err == nil {
		t.Error("a directory under a file")
	}
	if err := Rename(from, to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("rename of nothing: %v", err)
	}
	for range 2 {
		if err := Remove(to); err != nil {
			t.Error(err)
		}
	}
	only(t, deep)
}

func TestAppendAndTruncate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := OpenFile(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "two", "three"} {
		if err := f.Append([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(6); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(7); err == nil {
		t.Error("truncate made the file longer")
	}
	if err := f.Append([]byte("!")); err != nil {
		t.Errorf("a refused truncate broke the file: %v", err)
	}
	if f.Size() != 7 {
		t.Errorf("size %d", f.Size())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = OpenFile(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Append([]byte("again")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, f.Size())
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "onetwo!again" {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// After a failed write the file refuses everything, also what might work.
func TestAppendErrorSticks(t *testing.T) {
	f, err := OpenFile(filepath.Join(t.TempDir(), "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	real := f.f
	broken, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	f.f = broken // read-only: the kernel refuses the write
	first := f.Append([]byte("x"))
	if first == nil {
		t.Fatal("write to a read-only descriptor")
	}
	f.f = real
	if err := f.Append([]byte("x")); !errors.Is(err, first) {
		t.Errorf("append after an error: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, first) {
		t.Errorf("truncate after an error: %v", err)
	}
	if err := errors.Join(f.Close(), broken.Close()); err != nil {
		t.Error(err)
	}
}

func TestReserve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	for range 2 {
		if err := Reserve(path, 1<<20); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Size() != 1<<20 {
			t.Fatalf("%v %v", st, err)
		}
		if blocks := st.Sys().(*syscall.Stat_t).Blocks; blocks*512 < 1<<20 {
			t.Errorf("%d blocks: space is promised, not taken", blocks)
		}
	}
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if err := Reserve(path, 1<<20); err != nil {
		t.Error("a cut reserve is not filled:", err)
	}
	if err := Reserve(filepath.Join(path, "x"), 1); err == nil {
		t.Error("reserve below a file")
	}
}

func BenchmarkAppend(b *testing.B) {
	f, err := OpenFile(filepath.Join(b.TempDir(), "f"), 0o600)
	if err != nil {
		b.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 180)
	for b.Loop() {
		if err := f.Append(line); err != nil {
			b.Fatal(err)
		}
	}
}
