package hub

import (
	"encoding/json"
	"net/url"
	"testing"
)

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
