// Mangen writes the manual pages of the programs, in section 1, one for each command:
//
//	mangen -bin build/bin -out build/man
//
// It asks the programs themselves, by --help, for all that they say: so the pages describe what was built, and no code
// that makes pages is linked into a program. What it understands is the help of cobra (alcoved, alcove-hub, alcovectl)
// and the help of package flag as alcove-capture writes it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	bin := flag.String("bin", "build/bin", "folder with the built programs")
	out := flag.String("out", "build/man", "folder for the pages")
	flag.Parse()
	if err := run(*bin, *out, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mangen:", err)
		os.Exit(1)
	}
}

// programs are those that have pages, with what they say nowhere in their help: what their exit status means. The test
// runs them into each.
var programs = []struct {
	name string
	exit string
}{
	{"alcoved", "0 when it was done, 1 when it failed or the room refused, 3 when no daemon answers on the control socket."},
	{"alcove-hub", "0 when it was done, 1 when it failed."},
	{"alcovectl", ""}, // in its help
	{"alcove-capture", "0 when it was asked to stop or its socket closed, 1 when a device or the socket failed, 2 for wrong arguments."},
}

// run replaces what is in out.
func run(bin, out string, stdout io.Writer) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(out, "*.1"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	n := 0
	for _, p := range programs {
		pages, err := describe(filepath.Join(bin, p.name), p.exit)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, page := range pages {
			if err := os.WriteFile(filepath.Join(out, page.file()), page.roff(), 0o644); err != nil {
				return err
			}
		}
		n += len(pages)
	}
	fmt.Fprintf(stdout, "man: %d pages in %s\n", n, out)
	return nil
}

// describe asks a program and all its commands.
func describe(program, exit string) ([]*page, error) {
	v := version(program)
	var pages []*page
	var visit func(path []string, short string) error
	visit = func(path []string, short string) error {
		text, err := ask(program, append(path[1:len(path):len(path)], "--help")...)
		if err != nil {
			return fmt.Errorf("%s --help: %w", strings.Join(path, " "), err)
		}
		p, err := parse(path, text)
		if err != nil {
			return fmt.Errorf("%s --help: %w", strings.Join(path, " "), err)
		}
		if short != "" {
			p.short = short
		}
		if p.exit == "" {
			p.exit = exit
		}
		p.version = v
		pages = append(pages, p)
		for _, c := range p.commands {
			if err := visit(append(path[:len(path):len(path)], c.name), c.text); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit([]string{filepath.Base(program)}, ""); err != nil {
		return nil, err
	}
	for _, p := range pages { // what the program says of all its commands
		if pages[0].exit != "" {
			p.exit = pages[0].exit
		}
		p.link(pages)
	}
	return pages, nil
}

// ask returns what a program prints on its standard output.
func ask(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "COLUMNS=100")
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", fmt.Errorf("%w: %.300s", err, failed.Stderr)
	}
	return string(out), err
}

// version is empty for a program that does not tell it.
func version(program string) string {
	out, err := ask(program, "--version")
	if err != nil {
		return ""
	}
	_, v, ok := strings.Cut(strings.TrimSpace(out), " version ")
	if !ok || strings.ContainsAny(v, "\n") {
		return ""
	}
	return v
}
