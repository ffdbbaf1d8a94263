package web

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// built is the call page, or skips where npm has not built it: the clone without Node still compiles and tests.
func built(t *testing.T) fs.FS {
	t.Helper()
	call, err := Call()
	if errors.Is(err, ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return call
}

type manifest struct {
	Version int               `json:"version"`
	Bundle  string            `json:"bundle"`
	Files   map[string]string `json:"files"`
}

func readManifest(t *testing.T, call fs.FS) manifest {
	t.Helper()
	b, err := fs.ReadFile(call, "manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// The embedded page is the released one, byte for byte.
func TestEmbeddedPageIsTheReleasedOne(t *testing.T) {
	call := built(t)
	m := readManifest(t, call)
	var names []string
	for name := range m.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	var lines strings.Builder
	for _, name := range names {
		b, err := fs.ReadFile(call, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := hexSum(b); got != m.Files[name] {
			t.Errorf("%s has SHA-256 %s, the manifest says %s", name, got, m.Files[name])
		}
		fmt.Fprintf(&lines, "%s  %s\n", m.Files[name], name)
	}
	if got := hexSum([]byte(lines.String())); got != m.Bundle {
		t.Errorf("bundle hash is %s, the manifest says %s", got, m.Bundle)
	}
	released, err := os.ReadFile("call.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(released)); got != m.Bundle {
		t.Errorf("built page has hash %s, call.sha256 says %s: `npm run build -- --release` when the change is meant", m.Bundle, got)
	}
	var extra []string
	if err := fs.WalkDir(call, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != "manifest.json" && m.Files[path] == "" {
			extra = append(extra, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(extra) > 0 {
		t.Errorf("files that the manifest does not know: %v", extra)
	}
}

// The policy can only be strict if the page needs nothing else.
func TestIndexHasNothingInline(t *testing.T) {
	index, err := fs.ReadFile(built(t), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	page := string(index)
	for _, bad := range []string{"<style", " style=", "onload=", "onclick=", "javascript:", "http://", "https://", "<base", "<form"} {
		if strings.Contains(page, bad) {
			t.Errorf("index.html contains %q", bad)
		}
	}
	for _, line := range strings.Split(page, "\n") {
		names := strings.Contains(line, "<script") || strings.Contains(line, `rel="stylesheet"`)
		if names && !strings.Contains(line, `integrity="sha384-`) {
			t.Errorf("without a hash: %s", line)
		}
	}
}

func TestCSP(t *testing.T) {
	got := CSP([]string{"https://hub.clinic.example", "wss://hub.clinic.example"})
	want := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
		"media-src 'self' blob:; font-src 'self'; worker-src 'self'; " +
		"connect-src 'self' https://hub.clinic.example wss://hub.clinic.example; " +
		"require-trusted-types-for 'script'; trusted-types alcove; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got != want {
		t.Errorf("CSP is\n%s\nwant\n%s", got, want)
	}
	for _, bad := range []string{"unsafe", "*", "http:"} {
		if strings.Contains(got, bad) {
			t.Errorf("CSP contains %q", bad)
		}
	}
}
