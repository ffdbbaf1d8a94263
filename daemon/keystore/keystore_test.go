package keystore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func openOrFail(t *testing.T, dir string) *Keystore {
	t.Helper()
	k, err := Open(dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func auditKeyset(k *Keystore) error {
	p, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		return err
	}
	h, err := k.Keyset("audit", &p)
	if err != nil {
		return err
	}
	_, err = signature.NewSigner(h)
	return err
}

// filled makes a keystore with every kind of file in it.
func filled(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := auditKeyset(openOrFail(t, dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	if len(out) != 6 {
		t.Fatalf("files %v, want 6", out)
	}
	return out
}

func TestKeysStayAndDiffer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	a := openOrFail(t, dir)
	b := openOrFail(t, dir)
	if !bytes.Equal(a.TLSSPKI(), b.TLSSPKI()) || !bytes.Equal(a.SignSPKI(), b.SignSPKI()) {
		t.Error("keys changed between two starts")
	}
	if bytes.Equal(a.TLSSPKI(), a.SignSPKI()) {
		t.Error("one key for TLS and documents")
	}
	digest := sha256.Sum256([]byte("document"))
	sig, err := a.Sign().Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(b.SignSPKI())
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest[:], sig) {
		t.Error("signature does not verify with the inventory's key")
	}
	if inv := a.Inventory(); inv.Protection != ProtectionHost || !bytes.Equal(inv.SignSPKI, a.SignSPKI()) {
		t.Errorf("inventory %+v", inv)
	}
}

func TestNoCleartextOnDisk(t *testing.T) {
	dir := filled(t)
	k := openOrFail(t, dir)
	secret, err := k.tls.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.sign.private)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		// A cleartext keyset names its key types.
		if bytes.Contains(b, secret) || bytes.Contains(b, der[:20]) || bytes.Contains(b, []byte("PrivateKey")) {
			t.Errorf("%s holds a key in the clear", name)
		}
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
}

func TestKeyDoesNotLeakIntoText(t *testing.T) {
	k := openOrFail(t, filled(t))
	secret, err := k.tls.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	d := new(big.Int).SetBytes(secret)
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "key", k.TLS(), "cert", k.TLSCertificate())
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", k.TLS(), k.TLS(), k.TLS(), k.TLS()), b.String()} {
		if strings.Contains(text, d.String()) || strings.Contains(text, d.Text(16)) {
			t.Errorf("private key in %q", text)
		}
	}
}

func TestTLSConnection(t *testing.T) {
	server, client := openOrFail(t, filled(t)), openOrFail(t, filled(t))
	a, b := net.Pipe()
	pinned := func(spki []byte) func(tls.ConnectionState) error {
		return func(s tls.ConnectionState) error {
			if !bytes.Equal(s.PeerCertificates[0].RawSubjectPublicKeyInfo, spki) {
				return errors.New("another key")
			}
			return nil
		}
	}
	s := tls.Server(a, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server.TLSCertificate()},
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: pinned(client.TLSSPKI()),
	})
	c := tls.Client(b, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{client.TLSCertificate()},
		InsecureSkipVerify: true, VerifyConnection: pinned(server.TLSSPKI()), // by key, not by name
	})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Error("client:", err)
	}
	if err := <-done; err != nil {
		t.Error("server:", err)
	}
}

// Every file, missing or changed anywhere, refuses the keystore or the keyset.
func TestDamageIsRefused(t *testing.T) {
	changed := map[string]int{}
	dir := filled(t)
	for _, name := range names(t, dir) {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		use := func() error {
			k, err := Open(dir, quiet())
			if err != nil {
				return err
			}
			return auditKeyset(k)
		}
		refused := func(kind string, content []byte) {
			t.Helper()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := use(); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s %s: %v", name, kind, err)
			}
			changed[kind]++
		}
		for i := range whole {
			flipped := bytes.Clone(whole)
			flipped[i] ^= 0x40
			refused("flipped", flipped)
		}
		refused("cut", whole[:len(whole)-1])
		refused("empty", nil)
		refused("long", append(bytes.Clone(whole), make([]byte, maxFile)...))
		if name != fileMarker {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := use(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s missing: %v", name, err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s was made again", name)
			}
			changed["missing"]++
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := use(); err != nil {
			t.Fatal("restored keystore:", err)
		}
	}
	t.Log("damage:", changed)
	for _, kind := range []string{"flipped", "cut", "empty", "long", "missing"} {
		if changed[kind] == 0 {
			t.Errorf("no file was %s", kind)
		}
	}
}

func TestSwappedFilesAreRefused(t *testing.T) {
	dir := filled(t)
	if err := os.Rename(filepath.Join(dir, fileTLS), filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, fileSign), filepath.Join(dir, fileTLS)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, fileSign)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet()); !errors.Is(err, ErrDamaged) {
		t.Errorf("swapped identity keys: %v", err)
	}
}

func TestPermissionsAreDemanded(t *testing.T) {
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644} {
		dir := filled(t)
		for _, name := range names(t, dir) {
			path := filepath.Join(dir, name)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			k, err := Open(dir, quiet())
			if err == nil {
				err = auditKeyset(k)
			}
			if !errors.Is(err, ErrPermissions) {
				t.Errorf("%s with mode %o: %v", name, mode, err)
			}
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, mode|0o100); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, quiet()); !errors.Is(err, ErrPermissions) {
			t.Errorf("directory with mode %o: %v", mode|0o100, err)
		}
	}
}

func TestForeignOwnerAndLinksAreRefused(t *testing.T) {
	dir := filled(t)
	path := filepath.Join(dir, fileKEK)
	if err := os.Rename(path, path+"-real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+"-real", path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet()); !errors.Is(err, ErrPermissions) {
		t.Errorf("symbolic link: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: foreign owners are not tried")
		return
	}
	dir = filled(t)
	if err := os.Chown(filepath.Join(dir, fileSign), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet()); !errors.Is(err, ErrPermissions) {
		t.Errorf("foreign owner: %v", err)
	}
}

// A first start that was cut after any file is finished by the next.
func TestInterruptedFirstStart(t *testing.T) {
	order := []string{fileKEK, fileDevice, fileTLS, fileSign}
	for n := range len(order) + 1 {
		dir := filepath.Join(t.TempDir(), "keys")
		whole := openOrFail(t, dir)
		for _, name := range append(order[n:], fileMarker) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		k, err := Open(dir, quiet())
		if err != nil {
			t.Errorf("after %d files: %v", n, err)
			continue
		}
		if kept := bytes.Equal(k.TLSSPKI(), whole.TLSSPKI()); kept != (n >= 3) {
			t.Errorf("after %d files: TLS key kept: %v", n, kept)
		}
	}
	// The outermost key alone is gone: what it protected is not thrown away.
	dir := filled(t)
	for _, name := range []string{fileKEK, fileMarker} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, quiet()); !errors.Is(err, ErrDamaged) {
		t.Errorf("lost key encryption key: %v", err)
	}
}
