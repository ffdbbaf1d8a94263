// Package answer writes what the hub says over HTTP, and reads what it is told: JSON in both directions, refusals in
// the one form of PROTOCOL.md. Readers are bounded and strict.
package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/alcove-room/alcove/provisioning/document"
)

// Refusal is the body of every answer that is not a success.
type Refusal struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

// JSON writes v. Nothing that the hub says may be kept by a cache.
func JSON(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("answer: a value of fixed types does not encode: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(raw) // an error says that the client is gone
}

// Refuse writes a refusal: code for programs, message for people (what happened and what to do).
func Refuse(w http.ResponseWriter, status int, code, message string) {
	JSON(w, status, Refusal{code, message})
}

// Failed is the answer to a failure of our own. Its cause goes to the log, not to a stranger.
func Failed(w http.ResponseWriter) {
	Refuse(w, http.StatusInternalServerError, "failed", "The hub could not do this. Try again; call IT when this stays.")
}

// SlowDown is the answer beyond a rate limit.
func SlowDown(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "10")
	Refuse(w, http.StatusTooManyRequests, "slow_down", "Too many requests from this address. Wait a moment and try again.")
}

// ErrBody is wrapped by every error of Read.
var ErrBody = errors.New("request body refused")

// Read decodes a JSON body of at most limit bytes. Requiring the content type keeps out cross-site forms.
func Read(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return fmt.Errorf("%w: the content type is not application/json", ErrBody)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	if err := document.Decode(raw, v); err != nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return nil
}
