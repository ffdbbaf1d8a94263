package keystore

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/alcove-room/alcove/daemon/durable"
)

// Every file is magic ‖ content. The KEK's content is key[32] ‖ check[8], where
// check is the start of SHA-256("alcove/kek-check/v1" ‖ key): it tells a damaged
// KEK from a damaged keyset. All other contents are ciphertexts.
const (
	magic     = "ALCVKST1"
	kekSize   = 32
	checkSize = 8
	maxFile   = 1 << 20
)

// associated is the AAD of a file.
func associated(name string) []byte { return []byte("alcove/keystore/v1/" + name) }

func (k *Keystore) openKEK(mayMake bool) (tink.AEAD, error) {
	content, err := k.read(fileKEK)
	if errors.Is(err, os.ErrNotExist) && mayMake {
		if err := k.nothingBut(); err != nil {
			return nil, err
		}
		content = make([]byte, kekSize, kekSize+checkSize)
		if _, err := rand.Read(content); err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		content = append(content, kekCheck(content)...)
		err = k.write(fileKEK, content)
	}
	if err != nil {
		return nil, k.missing(fileKEK, err)
	}
	if len(content) != kekSize+checkSize || !bytes.Equal(content[kekSize:], kekCheck(content[:kekSize])) {
		return nil, fmt.Errorf("%w: %s has changed", ErrDamaged, fileKEK)
	}
	parameters, err := aes256()
	if err != nil {
		return nil, err
	}
	kek, err := aesgcm.NewKey(secretdata.NewBytesFromData(content[:kekSize], insecuresecretdataaccess.Token{}), 0, parameters)
	if err != nil {
		return nil, fmt.Errorf("key encryption key: %w", err)
	}
	h, err := single(func(m *keyset.Manager) (uint32, error) { return m.AddKey(kek) })
	if err != nil {
		return nil, fmt.Errorf("key encryption key: %w", err)
	}
	return aead.New(h)
}

func kekCheck(kek []byte) []byte {
	h := sha256.Sum256(append([]byte("alcove/kek-check/v1"), kek...))
	return h[:checkSize]
}

func aes256() (*aesgcm.Parameters, error) {
	return aesgcm.NewParameters(aesgcm.ParametersOpts{
		KeySizeInBytes: 32, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantNoPrefix,
	})
}

func (k *Keystore) openDevice(kek tink.AEAD, mayMake bool) (tink.AEAD, error) {
	h, err := k.readKeyset(fileDevice, kek)
	if errors.Is(err, os.ErrNotExist) && mayMake {
		if err := k.nothingBut(fileKEK); err != nil {
			return nil, err
		}
		// With a prefix, so that the keyset can be rotated: a ciphertext names its key.
		var parameters *aesgcm.Parameters
		parameters, err = aesgcm.NewParameters(aesgcm.ParametersOpts{
			KeySizeInBytes: 32, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantTink,
		})
		if err == nil {
			h, err = k.makeKeyset(fileDevice, parameters, kek)
		}
	}
	if err != nil {
		return nil, k.missing(fileDevice, err)
	}
	return aead.New(h)
}

// nothingBut refuses to make an outer key while keys exist that only the old one
// could open.
func (k *Keystore) nothingBut(allowed ...string) error {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name()[0] == '.' { // a leftover of an interrupted durable.WriteFile
			continue
		}
		known := false
		for _, name := range allowed {
			known = known || e.Name() == name
		}
		if !known {
			return fmt.Errorf("%w: %s is there, but not the key that opens it", ErrDamaged, e.Name())
		}
	}
	return nil
}

func (k *Keystore) readKeyset(name string, with tink.AEAD) (*keyset.Handle, error) {
	sealed, err := k.read(name)
	if err != nil {
		return nil, err
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(sealed)), with, associated(name))
	if err != nil {
		return nil, fmt.Errorf("%w: %s cannot be opened", ErrDamaged, name)
	}
	return h, nil
}

func (k *Keystore) makeKeyset(name string, parameters key.Parameters, with tink.AEAD) (*keyset.Handle, error) {
	h, err := single(func(m *keyset.Manager) (uint32, error) { return m.AddNewKeyFromParameters(parameters) })
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	var sealed bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&sealed), with, associated(name)); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return h, k.write(name, sealed.Bytes())
}

func single(add func(*keyset.Manager) (uint32, error)) (*keyset.Handle, error) {
	m := keyset.NewManager()
	id, err := add(m)
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	return m.Handle()
}

func (k *Keystore) write(name string, content []byte) error {
	return durable.WriteFile(k.path(name), append([]byte(magic), content...), 0o600)
}

// read returns a file's content behind the magic. The checks are made on the
// opened descriptor, so that the file cannot be exchanged in between.
func (k *Keystore) read(name string) ([]byte, error) {
	f, err := os.OpenFile(k.path(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link", ErrPermissions, name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no file", ErrDamaged, name)
	}
	if err := private(name, st); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxFile || !bytes.HasPrefix(b, []byte(magic)) {
		return nil, fmt.Errorf("%w: %s does not have the form of a keystore file", ErrDamaged, name)
	}
	return b[len(magic):], nil
}

// readMarker and writeMarker keep the list of keysets, one name per line, sealed
// like everything else.
func (k *Keystore) readMarker() error {
	sealed, err := k.read(fileMarker)
	if err != nil {
		return err
	}
	list, err := k.aead.Decrypt(sealed, associated(fileMarker))
	if err != nil {
		return fmt.Errorf("%w: %s cannot be opened", ErrDamaged, fileMarker)
	}
	k.made = strings.Fields(string(list))
	return nil
}

func (k *Keystore) writeMarker(made []string) error {
	sealed, err := k.aead.Encrypt([]byte(strings.Join(made, "\n")), associated(fileMarker))
	if err != nil {
		return fmt.Errorf("write %s: %w", fileMarker, err)
	}
	if err := k.write(fileMarker, sealed); err != nil {
		return err
	}
	k.made = made
	return nil
}

func (k *Keystore) exists(name string) (bool, error) {
	_, err := k.read(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// missing puts words to a file that is not there although it must be.
func (k *Keystore) missing(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing; restore it, or remove the directory and enrol this room again", ErrDamaged, name)
	}
	return err
}

func checkDir(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%w: it is no directory", ErrPermissions)
	}
	return private(".", st)
}

func private(name string, st fs.FileInfo) error {
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o; only its owner may have access (chmod go= %s)",
			ErrPermissions, name, st.Mode().Perm(), name)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s does not belong to this user", ErrPermissions, name)
	}
	return nil
}
