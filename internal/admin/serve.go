package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// request is one request of a caller who may make it.
type request struct {
	*http.Request
	writer  http.ResponseWriter
	server  *Server
	caller  caller
	backend Backend
}

// ServeHTTP answers one request. Who asks is settled first: nobody else learns even
// which paths there are.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.recovered(w, r)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 {
		// Also where the body is not wanted: net/http reads on for the next request.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.limits.ReadBody))
	}
	write := r.Method != http.MethodGet && r.Method != http.MethodHead
	c, fault := s.identify(r)
	key, name := "actor "+c.name, c.name
	switch {
	case fault != nil:
		w.Header().Set("Connection", "close") // a stranger's connection is not worth a place
		key, name = "stranger "+remoteHost(r), remoteHost(r)
	case c.local:
		key = "local " + c.name // no certname can use up what is the machine's own
	}
	if wait, ok := s.rates.take(key, write, time.Now()); !ok {
		w.Header().Set("Retry-After", retryAfter(wait))
		s.writeFault(w, refuse(http.StatusTooManyRequests, "too-many-requests", "too many requests of %s: the bound is %s",
			name, s.rates.bound(write)))
		return
	}
	if fault == nil {
		fault = s.authorise(c, write)
	}
	if fault != nil {
		s.forbid(w, r, c, fault)
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		s.forbid(w, r, c, forbidden("origin-refused", "this comes from a web page (of %.100q), and the API is not for those", origin))
		return
	}
	if clean := path.Clean(r.URL.Path); clean != r.URL.Path || clean == "*" {
		s.notFound(w, r) // rather than ServeMux's redirect
		return
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
}

type callerKey struct{}

// newMux makes a mux that knows paths only, as a wrong method and an unknown path
// are answered in this API's own way.
func (s *Server) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.notFound)
	for path, methods := range byPath() {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { s.route(w, r, methods) })
	}
	return mux
}

// byPath is the route of each path and method.
func byPath() map[string]map[string]*route {
	paths := make(map[string]map[string]*route)
	for i := range routes {
		r := &routes[i]
		if paths[r.path] == nil {
			paths[r.path] = make(map[string]*route)
		}
		paths[r.path][r.method] = r
		if r.method == http.MethodGet {
			paths[r.path][http.MethodHead] = r
		}
	}
	return paths
}

// route answers a request to a path that there is.
func (s *Server) route(w http.ResponseWriter, r *http.Request, methods map[string]*route) {
	c := r.Context().Value(callerKey{}).(caller)
	to := methods[r.Method]
	if to == nil {
		w.Header().Set("Allow", allowedMethods(methods))
		s.writeFault(w, refuse(http.StatusMethodNotAllowed, "method-not-allowed",
			"%.20q is no method of %s: %s", r.Method, r.URL.Path, allowedMethods(methods)))
		return
	}
	backend, _ := s.current()
	if backend == nil {
		w.Header().Set("Retry-After", "1")
		s.writeFault(w, refuse(http.StatusServiceUnavailable, "not-ready", "the node is starting or stopping"))
		return
	}
	request := &request{Request: r, writer: w, server: s, caller: c, backend: backend}
	err := request.check(to)
	if err == nil && to.stream {
		err = s.stream(request)
		if err == nil {
			return
		}
	}
	var answer any
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), s.limits.Write*5/6) // some of it is for the answer
		defer cancel()
		request.Request = r.WithContext(ctx)
		answer, err = to.answer(request)
	}
	if to.method != http.MethodGet {
		s.logWrite(r, c, err)
	}
	if err != nil {
		s.writeFault(w, s.faultOf(r, err))
		return
	}
	s.write(w, http.StatusOK, mediaJSON, canonical(answer))
}

// forbid answers with 403 and says so in the log.
func (s *Server) forbid(w http.ResponseWriter, r *http.Request, c caller, fault *Fault) {
	s.log.warn(remoteHost(r), "admin: 403 to %s (certname %q) for %.10s %.200q: %s", r.RemoteAddr, c.actor(), r.Method, r.URL.Path, fault.Detail)
	s.writeFault(w, fault)
}

func (s *Server) logWrite(r *http.Request, c caller, err error) {
	if err != nil {
		s.log.Infof("%s", oneLine(fmt.Sprintf("admin: %s %s by %s: not done: %s", r.Method, r.URL.Path, c.actor(), err)))
		return
	}
	s.log.Infof("%s", oneLine(fmt.Sprintf("admin: %s %s by %s: done", r.Method, r.URL.Path, c.actor())))
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		s.writeFault(w, refuse(http.StatusNotFound, "no-such-path", "%.200q is no path of this release: they begin with /v1/", r.URL.Path))
		return
	}
	s.writeFault(w, refuse(http.StatusNotFound, "no-such-path", "%.200q is no path of this release: /v1/openapi.json has them all", r.URL.Path))
}

// recovered turns a panic into an answer.
func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	switch p {
	case nil:
		return
	case http.ErrAbortHandler:
		panic(p)
	}
	s.log.Errorf("admin: panic at %s %.200q: %v\n%s", r.Method, r.URL.Path, p, debug.Stack())
	w.Header().Set("Connection", "close")
	s.writeFault(w, refuse(http.StatusInternalServerError, "internal", "an error of the node itself, which is in its log"))
}

func allowedMethods(methods map[string]*route) string {
	var names []string
	for name := range methods {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// remoteHost is the address a request comes from, without its port.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
