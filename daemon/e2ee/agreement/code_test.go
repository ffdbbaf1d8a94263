package agreement

import (
	"crypto/hkdf"
	"crypto/sha256"
	"strings"
	"testing"
)

// hkdfSHA256 is the standard library's, beside Tink's that the product uses.
func hkdfSHA256(t *testing.T, secret []byte, salt string, info []byte, n int) []byte {
	out, err := hkdf.Key(sha256.New, secret, []byte(salt), string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPictures(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Pictures {
		if p == "" || seen[p] || strings.ToLower(p) != p {
			t.Fatalf("picture %q", p)
		}
		seen[p] = true
	}
	counts := [64]int{}
	for i := range 4000 {
		T := T(sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		four := ChoosePictures(T)
		for j, a := range four {
			counts[a]++
			for _, b := range four[:j] {
				if a == b {
					t.Fatalf("picture %d twice", a)
				}
			}
		}
		if c, d := Code(T), Digits(T); len(c) != 9 || c[4] != '-' || len(d) != 9 || d[4] != ' ' {
			t.Fatalf("%q %q", c, d)
		}
	}
	for i, c := range counts {
		if c < 170 || c > 330 { // 250 expected
			t.Fatalf("picture %d chosen %d times", i, c)
		}
	}
}
