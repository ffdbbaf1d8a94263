// Package durable is the only way anything of Alcove touches disk for keeps.
//
// When a call returns nil, what it did survives a power cut: file contents are
// fsync'd, and so is the directory whose entry changed. When a call returns an
// error, the change may or may not be on disk ("failed but persisted"), and
// callers recover by reading what is there, never by assuming the old state.
// WriteFile and Rename are atomic: a reader, and a restart after a cut, sees the
// whole old or the whole new file (rename(2), POSIX.1-2017).
//
// A failed fsync is final for its descriptor: since Linux 4.13 the kernel
// reports a lost write once and then forgets it, so a second fsync that succeeds
// proves nothing. File therefore keeps the first error and returns it for ever;
// the owner closes it, reads the file again and starts over.
//
// The package protects against crashes. It does not lock: two writers of one
// path must agree among themselves. It imports nothing of the project.
package durable

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
)

// WriteFile puts data at path: temporary file in the same directory, fsync,
// rename, fsync of the directory. The file's mode is exactly perm, whatever the
// umask. Leftovers of an interrupted call are named "."+base+".tmp-*".
func WriteFile(path string, data []byte, perm os.FileMode) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	tmp, err := os.CreateTemp(dir, "."+base+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fill(tmp, data, perm); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return SyncDir(dir)
}

func fill(f *os.File, data []byte, perm os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Rename moves a file, replacing the target, and makes both directories durable.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if err := SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return SyncDir(filepath.Dir(from))
}

// Remove deletes a file or an empty directory. A path that does not exist is
// not an error: the state that was asked for holds.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes path and its missing parents with mode perm, each made durable
// in its parent.
func MkdirAll(path string, perm os.FileMode) error {
	if st, err := os.Stat(path); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("make directory %s: a file is in its place", path)
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return SyncDir(parent)
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// File is an append-only file. Its methods may be called from several
// goroutines; an Append is one write and one fsync.
type File struct {
	mu   sync.Mutex
	f    *os.File
	size int64
	err  error // first failure; sticks
}

// OpenFile opens path for reading and appending, making it with mode perm when
// it is missing.
func OpenFile(path string, perm os.FileMode) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, perm)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, errors.Join(err, f.Close()))
	}
	return &File{f: f, size: st.Size()}, nil
}

// Append writes p at the end and returns when it is durable.
func (d *File) Append(p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	n, err := d.f.WriteAt(p, d.size)
	d.size += int64(n)
	if err == nil {
		err = d.f.Sync()
	}
	return d.keepLocked("append", err)
}

// Truncate cuts the file to size bytes, or fails when it is shorter.
func (d *File) Truncate(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	if size > d.size || size < 0 {
		return fmt.Errorf("truncate %s to %d bytes: it has %d", d.f.Name(), size, d.size)
	}
	err := d.f.Truncate(size)
	if err == nil {
		d.size = size
		err = d.f.Sync()
	}
	return d.keepLocked("truncate", err)
}

func (d *File) keepLocked(what string, err error) error {
	if err != nil {
		d.err = fmt.Errorf("%s %s: %w", what, d.f.Name(), err)
	}
	return d.err
}

// ReadAt reads as io.ReaderAt does.
func (d *File) ReadAt(p []byte, off int64) (int, error) { return d.f.ReadAt(p, off) }

// Size is the length in bytes, torn bytes of a failed Append included.
func (d *File) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// Close closes the descriptor; what Append returned nil for stays durable.
func (d *File) Close() error { return d.f.Close() }

// Reserve makes path hold size bytes of real blocks, for those who must be able
// to write when the disk is full: they remove the reserve first. The bytes are
// pseudo-random, so that a file system that compresses gives them room too.
func Reserve(path string, size int64) error {
	if st, err := os.Stat(path); err == nil && st.Size() == size {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), size)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("reserve %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return SyncDir(filepath.Dir(path))
}
