// Package keystore keeps a device's keys at rest.
//
//	KEK (32 bytes) ── host slot: a file that only the daemon's user can read
//	 └─ device keyset (Tink AES-256-GCM, AAD = "device")
//	     ├─ id-tls   P-256 in PKCS #8: the TLS connections to the hub
//	     ├─ id-sign  P-256 in PKCS #8: signs documents; never used for TLS
//	     └─ keysets  one per purpose, encrypted Tink keysets (AAD = purpose)
//
// Two identity keys, so that no TLS handshake can ever be made to sign a
// document. The AAD binds each file to its purpose: files cannot be swapped.
//
// The host slot does not protect against theft of the disk or of the box: who
// reads the file has the keys. Inventory says so (Protection "host"), and so do
// the roster and every receipt. Everything fails closed: a wrong mode or owner,
// a symbolic link, a missing or damaged file refuse the whole keystore, and no
// key is ever replaced silently. Identity keys are made once, in Open on an empty
// directory, keysets on first use. The marker, written after what it names, lists
// everything that was made: it tells an interrupted first start (which Open
// finishes) from a keystore that has lost a file (which it refuses).
//
// Nothing of a key is logged.
package keystore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/alcove-room/alcove/daemon/durable"
)

// Errors that callers tell apart. The texts say what to do.
var (
	// ErrPermissions: somebody else can read or change the keys.
	ErrPermissions = errors.New("keystore can be reached by other users")
	// ErrDamaged: a file is missing, cut or changed. The device needs a new
	// identity: remove the keystore directory and enrol the room again.
	ErrDamaged = errors.New("keystore is damaged")
)

// ProtectionHost: keys are in files; whoever takes the disk has them.
const ProtectionHost = "host"

// Names of the files; the names of keysets follow "keyset-".
const (
	fileKEK    = "kek.host"
	fileDevice = "device.keyset"
	fileTLS    = "id-tls.key"
	fileSign   = "id-sign.key"
	fileMarker = "complete"
)

// Keystore is an opened keystore. Its methods may be called from several
// goroutines.
type Keystore struct {
	dir  string
	log  *slog.Logger
	aead tink.AEAD // the device keyset
	tls  identity
	sign identity
	cert tls.Certificate

	mu   sync.Mutex // makes keysets one at a time, and owns made
	made []string   // names of the keysets that exist, as in the marker
}

// Inventory is what a device tells about its keys.
type Inventory struct {
	Protection string `json:"protection"` // ProtectionHost
	TLSSPKI    []byte `json:"tls_spki"`   // DER
	SignSPKI   []byte `json:"sign_spki"`  // DER
}

// Open opens the keystore in dir, and makes it when dir is missing or empty. dir
// must belong to the calling user with mode 0700.
func Open(dir string, log *slog.Logger) (*Keystore, error) {
	k := &Keystore{dir: dir, log: log}
	if err := k.open(); err != nil {
		return nil, fmt.Errorf("open keystore %s: %w", dir, err)
	}
	return k, nil
}

func (k *Keystore) open() error {
	if err := durable.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if err := checkDir(k.dir); err != nil {
		return err
	}
	complete, err := k.exists(fileMarker)
	if err != nil {
		return err
	}
	if err := k.openKeys(!complete); err != nil {
		return err
	}
	if k.cert, err = selfSigned(k.tls); err != nil {
		return err
	}
	if complete {
		return k.readMarker()
	}
	if err := k.writeMarker(nil); err != nil {
		return err
	}
	k.log.Info("keystore made", "protection", ProtectionHost)
	return nil
}

// openKeys goes from the outermost key to the innermost. With mayMake, a missing
// file is made, but only while nothing that it protects exists.
func (k *Keystore) openKeys(mayMake bool) error {
	kek, err := k.openKEK(mayMake)
	if err != nil {
		return err
	}
	if k.aead, err = k.openDevice(kek, mayMake); err != nil {
		return err
	}
	if k.tls, err = k.openIdentity(fileTLS, mayMake); err != nil {
		return err
	}
	k.sign, err = k.openIdentity(fileSign, mayMake)
	return err
}

func (k *Keystore) openIdentity(name string, mayMake bool) (identity, error) {
	sealed, err := k.read(name)
	if errors.Is(err, os.ErrNotExist) && mayMake {
		return k.makeIdentity(name)
	}
	if err != nil {
		return identity{}, k.missing(name, err)
	}
	der, err := k.aead.Decrypt(sealed, associated(name))
	if err != nil {
		return identity{}, fmt.Errorf("%w: %s cannot be opened with the device keyset", ErrDamaged, name)
	}
	return parseIdentity(der)
}

func (k *Keystore) makeIdentity(name string) (identity, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("make %s: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return identity{}, fmt.Errorf("make %s: %w", name, err)
	}
	sealed, err := k.aead.Encrypt(der, associated(name))
	if err != nil {
		return identity{}, fmt.Errorf("make %s: %w", name, err)
	}
	if err := k.write(name, sealed); err != nil {
		return identity{}, err
	}
	return parseIdentity(der)
}

// identity is a P-256 key that signs and cannot be taken out.
type identity struct {
	private *ecdsa.PrivateKey
	spki    []byte
}

func parseIdentity(der []byte) (identity, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || private.Curve != elliptic.P256() {
		return identity{}, fmt.Errorf("%w: an identity key is not P-256 in PKCS #8", ErrDamaged)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return identity{}, fmt.Errorf("identity key: %w", err)
	}
	return identity{private: private, spki: spki}, nil
}

// Public is the *ecdsa.PublicKey.
func (i identity) Public() crypto.PublicKey { return &i.private.PublicKey }

// Sign makes an ECDSA signature in ASN.1 DER, as a TPM's signer does.
func (i identity) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return i.private.Sign(random, digest, opts)
}

// LogValue keeps the key out of logs.
func (i identity) LogValue() slog.Value { return slog.StringValue("identity key") }

// String keeps the key out of formatted text.
func (i identity) String() string { return "identity key" }

// GoString keeps the key out of %#v.
func (i identity) GoString() string { return i.String() }

// TLS signs TLS handshakes and nothing else.
func (k *Keystore) TLS() crypto.Signer { return k.tls }

// Sign signs documents (id-sign): ECDSA P-256, ASN.1 DER, over SHA-256 digests.
func (k *Keystore) Sign() crypto.Signer { return k.sign }

// TLSSPKI is the TLS key's SubjectPublicKeyInfo in DER, as in the roster.
func (k *Keystore) TLSSPKI() []byte { return append([]byte(nil), k.tls.spki...) }

// SignSPKI is the signing key's SubjectPublicKeyInfo in DER, as in the roster.
func (k *Keystore) SignSPKI() []byte { return append([]byte(nil), k.sign.spki...) }

// TLSCertificate is a self-signed certificate of the TLS key. Peers know the key
// by its hash in roster or owner root and believe nothing else in it: it has no
// name, and no dates that matter.
func (k *Keystore) TLSCertificate() tls.Certificate { return k.cert }

// Inventory tells what the keys are and how they are kept.
func (k *Keystore) Inventory() Inventory {
	return Inventory{Protection: ProtectionHost, TLSSPKI: k.TLSSPKI(), SignSPKI: k.SignSPKI()}
}

func selfSigned(id identity) (tls.Certificate, error) {
	serial := sha256.Sum256(id.spki)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:16]),
		Subject:      pkix.Name{CommonName: "alcove"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		// RFC 5280 section 4.1.2.5: no well-defined expiration date.
		NotAfter:    time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, id.Public(), id)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: id, Leaf: leaf}, nil
}

var purposeForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Keyset opens the keyset of a purpose; on first use it makes one with a key of
// these parameters:
//
//	parameters, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
//	h, err := ks.Keyset("audit", &parameters)
func (k *Keystore) Keyset(purpose string, parameters key.Parameters) (*keyset.Handle, error) {
	if !purposeForm.MatchString(purpose) {
		return nil, fmt.Errorf("keyset: purpose %q: letters, digits and hyphens are expected", purpose)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	name := "keyset-" + purpose
	h, err := k.readKeyset(name, k.aead)
	made := slices.Contains(k.made, name)
	if errors.Is(err, os.ErrNotExist) && !made {
		h, err = k.makeKeyset(name, parameters, k.aead)
	}
	if err == nil && !made {
		err = k.writeMarker(append(slices.Clone(k.made), name))
	}
	if err != nil {
		return nil, fmt.Errorf("keyset %s: %w", purpose, k.missing(name, err))
	}
	return h, nil
}

func (k *Keystore) path(name string) string { return filepath.Join(k.dir, name) }
