package hub

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/alcove-room/alcove/daemon/durable"
	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/fleet"
)

const keyFile = "devices.pem"

// ErrKeyExists is returned by MakeKey for a folder that has a key: a new one would cut every room off.
var ErrKeyExists = errors.New("this folder has a key already")

// MakeKey makes the devices listener's key and self-signed certificate in dir, which it makes too, and returns the
// pin that the owner root must name. The certificate's names and dates mean nothing: rooms compare the key's hash.
func MakeKey(dir string) (document.Hash, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return document.Hash{}, fmt.Errorf("make state folder: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return document.Hash{}, fmt.Errorf("%w: %s", ErrKeyExists, path)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return document.Hash{}, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "alcove-hub"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"alcove-hub"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return document.Hash{}, fmt.Errorf("make certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return document.Hash{}, fmt.Errorf("write key: %w", err)
	}
	var out bytes.Buffer
	for _, b := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: der}, {Type: "CERTIFICATE", Bytes: cert}} {
		if err := pem.Encode(&out, b); err != nil {
			return document.Hash{}, fmt.Errorf("write key: %w", err)
		}
	}
	if err := durable.WriteFile(path, out.Bytes(), 0o600); err != nil {
		return document.Hash{}, fmt.Errorf("write key: %w", err)
	}
	_, pin, err := LoadKey(dir)
	return pin, err
}

// LoadKey reads what MakeKey wrote.
func LoadKey(dir string) (tls.Certificate, document.Hash, error) {
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return tls.Certificate{}, document.Hash{}, fmt.Errorf("%s has no key: run alcove-hub init --state %s", dir, dir)
	}
	if err != nil {
		return tls.Certificate{}, document.Hash{}, fmt.Errorf("read key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return tls.Certificate{}, document.Hash{}, fmt.Errorf("%s can be read by others: chmod 600, and think about who may have read it", path)
	}
	cert, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return tls.Certificate{}, document.Hash{}, fmt.Errorf("read key: %w", err)
	}
	return cert, fleet.PinOf(cert.Leaf.RawSubjectPublicKeyInfo), nil
}
