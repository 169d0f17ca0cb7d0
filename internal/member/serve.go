package member

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Limits of the members' own HTTPS.
const (
	maxConnections = 16384 // every master holds one or two open for its CRL
	maxRequests    = 8     // of one certname at a time
	maxHeader      = 16 << 10
	headerTimeout  = 5 * time.Second
)

// RoleState is what one member tells another of itself: GET /v1/role.
type RoleState struct {
	Host       string               `json:"host"`
	Role       *evidence.Role       `json:"role,omitempty"`
	PostgreSQL *evidence.PostgreSQL `json:"postgresql,omitempty"` // seen now
	CA         *evidence.CA         `json:"ca,omitempty"`
}

// listen begins to serve the other members, over mutual TLS.
func (m *Member) listen() error {
	s := m.settings()
	l, err := net.Listen("tcp", s.Listen.String())
	if err != nil {
		return fmt.Errorf("listen %s: %w", s.Listen, err)
	}
	l = netutil.LimitListener(l, maxConnections)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/role", m.serveRole)
	if m.ca != nil {
		mux.Handle("/v1/ca/", m.ca.server)
		mux.Handle("GET /v1/crl", m.ca.server)
	}
	m.server = &http.Server{
		Handler:           m.authenticated(mux),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(debugWriter{m.log}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return m.ctx },
	}
	m.done.Go(func() {
		if err := m.server.Serve(tls.NewListener(l, m.trust.authority.ServerTLS(m.trust.identity.Load))); !errors.Is(err, http.ErrServerClosed) {
			m.log.Errorf("Members' HTTPS at %s: %s", s.Listen, err)
		}
	})
	return nil
}

// authenticated looks at the certificate with each request: a connection may be
// older than a revocation.
func (m *Member) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := m.trust.authority.Client(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		if !m.asking.begin(who) {
			http.Error(w, fmt.Sprintf("%d requests of %s are under way: one after the other", maxRequests, who), http.StatusTooManyRequests)
			return
		}
		defer m.asking.end(who)
		next.ServeHTTP(w, r)
	})
}

// asking counts requests by certname: one host must not keep all others out.
type asking struct {
	mu sync.Mutex
	n  map[string]int
}

func (a *asking) begin(who string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n[who] >= maxRequests {
		return false
	}
	if a.n == nil {
		a.n = make(map[string]int)
	}
	a.n[who]++
	return true
}

func (a *asking) end(who string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n[who]--; a.n[who] == 0 {
		delete(a.n, who)
	}
}

// serveRole tells other masters, and no agent.
func (m *Member) serveRole(w http.ResponseWriter, r *http.Request) {
	who, err := m.trust.authority.Client(r)
	if err != nil || !slices.ContainsFunc(m.cluster.Peers(), func(p cluster.Peer) bool { return p.Name == who }) {
		http.Error(w, "only members of the cluster are told", http.StatusForbidden)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 800*time.Millisecond)
	defer cancel()
	answer(w, m.roleState(ctx))
}

// roleState looks now: who asks decides by it.
func (m *Member) roleState(ctx context.Context) RoleState {
	state := RoleState{Host: m.cluster.Name()}
	if m.role != nil {
		role := m.role.Status()
		state.Role = &role
	}
	if m.postgres != nil {
		e := m.postgres.Evidence(ctx)
		state.PostgreSQL = &e
	}
	if m.ca != nil {
		state.CA = m.ca.evidence(ctx)
	}
	return state
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return // the other side is gone
	}
}

// debugWriter takes what net/http says of connections that others break.
type debugWriter struct{ log Logger }

func (d debugWriter) Write(line []byte) (int, error) {
	d.log.Debugf("Members' HTTPS: %s", line)
	return len(line), nil
}
