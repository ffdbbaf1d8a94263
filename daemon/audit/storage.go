package audit

import (
	"os"
	"path/filepath"

	"github.com/alcove-room/alcove/daemon/durable"
)

// storage is the disk as the log needs it. The real one is durable; tests
// wrap it to fail, and to fail after having done the work.
type storage interface {
	open(name string) (file, error)
	read(name string) ([]byte, error)
	write(name string, data []byte) error // atomic
	reserve(name string, size int64) error
	remove(name string) error
}

// file is an append-only file. After an error of append or truncate its state is
// unknown; it is closed and opened again.
type file interface {
	append(p []byte) error
	truncate(size int64) error
	ReadAt(p []byte, off int64) (int, error)
	size() int64
	close() error
}

type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) open(name string) (file, error) {
	f, err := durable.OpenFile(d.path(name), 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d directory) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d directory) write(name string, data []byte) error {
	return durable.WriteFile(d.path(name), data, 0o600)
}

func (d directory) reserve(name string, size int64) error {
	return durable.Reserve(d.path(name), size)
}

func (d directory) remove(name string) error { return durable.Remove(d.path(name)) }

type diskFile struct{ *durable.File }

func (f diskFile) append(p []byte) error     { return f.Append(p) }
func (f diskFile) truncate(size int64) error { return f.Truncate(size) }
func (f diskFile) size() int64               { return f.Size() }
func (f diskFile) close() error              { return f.Close() }
