package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// askLock gets the passphrase: from --passphrase-file, or from the terminal.
// twice is for a new one.
func (d *desk) askLock(twice bool) (*lock, error) {
	p, err := d.passphrase(twice)
	if err != nil {
		return nil, err
	}
	if twice && len(p) < minPassphrase {
		return nil, fmt.Errorf("the passphrase has %d bytes; take at least %d, four words are good", len(p), minPassphrase)
	}
	return newLock(p), nil
}

func (d *desk) passphrase(twice bool) ([]byte, error) {
	if d.passphraseFile != "" {
		b, err := os.ReadFile(d.passphraseFile)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		line, _, _ := bytes.Cut(b, []byte("\n"))
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
	terminal, ok := d.stdin.(*os.File)
	if !ok || !isTerminal(terminal) {
		return nil, fmt.Errorf("%w: there is no terminal to ask for the passphrase; use --passphrase-file", errUsage)
	}
	p, err := d.ask(terminal, "Passphrase of the clinic's keys: ")
	if err != nil || !twice {
		return p, err
	}
	again, err := d.ask(terminal, "Once more: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(p, again) {
		return nil, errors.New("the two passphrases differ; nothing was made")
	}
	return p, nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ask reads a line without showing it.
func (d *desk) ask(terminal *os.File, question string) ([]byte, error) {
	fd := int(terminal.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	fmt.Fprint(d.stderr, question)
	line, err := bufio.NewReader(terminal).ReadBytes('\n')
	fmt.Fprintln(d.stderr)
	if restored := unix.IoctlSetTermios(fd, unix.TCSETS, old); restored != nil {
		return nil, fmt.Errorf("restore the terminal: %w", restored)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
