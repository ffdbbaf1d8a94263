package people

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
)

// Route is one operation over HTTP. Handlers get a caller who may do it.
type Route struct {
	Pattern string // of net/http
	Op      Operation
	Handler http.HandlerFunc
}

// Who finds out who calls; ErrNotFound when nobody is signed in.
type Who func(r *http.Request) (Identity, error)

type identityKey struct{}

// IdentityOf returns the caller whom the gate let in; the zero value where anyone may call.
func IdentityOf(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}

// Gate is the one way to a handler: it asks the table about the caller's roles, and refuses what has no route.
// A route that anyone may use does not need to know who calls.
func Gate(routes []Route, who Who, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	for _, route := range routes {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			if Allowed(Anyone, route.Op) {
				route.Handler(w, r)
				return
			}
			id, err := who(r)
			switch {
			case errors.Is(err, ErrNotFound):
				answer.Refuse(w, http.StatusUnauthorized, "sign_in", "You are not signed in, or were signed out. Sign in.")
			case err != nil:
				log.Error("find out who calls", "err", err)
				answer.Failed(w)
			case !AllowedAny(id.Roles, route.Op):
				answer.Refuse(w, http.StatusForbidden, "role", "Your role does not allow this. Ask IT.")
			default:
				route.Handler(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, id)))
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer.Refuse(w, http.StatusNotFound, "unknown", "There is nothing here.")
	})
	return mux
}
