package sfu

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
)

// NewProxy carries signalling to the child: /sfu/rtc… becomes /rtc…, query, headers and WebSocket frames untouched.
// Of LiveKit's paths only signalling passes: the room API, WHIP and agents stay on loopback.
func NewProxy(signalPort int) http.Handler {
	target := &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(signalPort)}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.URL.RawQuery = r.In.URL.RawQuery
		},
		Transport: &http.Transport{
			Proxy: nil, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 15 * time.Second,
			DisableCompression: true,
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // its messages hold addresses
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			answer.Refuse(w, http.StatusBadGateway, "media_unavailable", "The media server does not answer. Try again in a moment.")
		},
		ModifyResponse: func(res *http.Response) error {
			// LiveKit lets every origin in; which origin may read is the listener's to say.
			for name := range res.Header {
				if len(name) > 15 && name[:15] == "Access-Control-" {
					res.Header.Del(name)
				}
			}
			return nil
		},
	}
	mux := http.NewServeMux()
	for _, path := range []string{"/rtc", "/rtc/validate", "/rtc/v1", "/rtc/v1/validate"} {
		mux.Handle("GET /sfu"+path, http.StripPrefix("/sfu", proxy))
	}
	mux.HandleFunc("/sfu/", func(w http.ResponseWriter, _ *http.Request) {
		answer.Refuse(w, http.StatusNotFound, "unknown", "There is nothing here.")
	})
	return mux
}
