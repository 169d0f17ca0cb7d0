package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Allow says which certnames may ask over https. Who may open the unix socket may
// do everything.
type Allow struct {
	Write []string // and read; exact names, "*" is none
	Read  []string // exact names, or "*" for every certificate of the CA
}

// allowed is an [Allow] to look things up in.
type allowed struct {
	write, read map[string]bool
	all         bool // may read
}

func newAllowed(a Allow) allowed {
	set := allowed{write: make(map[string]bool), read: make(map[string]bool)}
	for _, name := range a.Write {
		set.write[strings.ToLower(name)] = name != "*"
	}
	for _, name := range a.Read {
		set.read[strings.ToLower(name)] = true
	}
	set.all = set.read["*"]
	return set
}

// caller is who asks.
type caller struct {
	local bool
	name  string // the certname, or the user of the machine
}

// actor is how the audit history names the caller.
func (c caller) actor() string {
	if c.local {
		return "local:" + c.name
	}
	return c.name
}

type localKey struct{}

// connContext remembers of a connection over a unix socket who is at its other end.
// The name is asked for when a request comes: that may be slow.
func connContext(ctx context.Context, c net.Conn) context.Context {
	counted, ok := c.(*connection) // over TLS it is a *tls.Conn
	if !ok || !counted.listener.local {
		return ctx
	}
	uid, err := peer(counted.Conn.(*net.UnixConn))
	name := func() string {
		if err != nil {
			return "unknown"
		}
		number := strconv.FormatUint(uint64(uid), 10)
		if u, err := user.LookupId(number); err == nil {
			return u.Username
		}
		return number
	}
	return context.WithValue(ctx, localKey{}, sync.OnceValue(name))
}

// identify says who sent a request. It asks the authority each time, as certificates
// end and are revoked while connections are open.
func (s *Server) identify(r *http.Request) (caller, *Fault) {
	if name, ok := r.Context().Value(localKey{}).(func() string); ok {
		return caller{local: true, name: name()}, nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller{}, forbidden("no-certificate",
			"no client certificate came: show one of the Puppet CA whose name the Corefile has in `admin_allow`")
	}
	leaf, others := r.TLS.PeerCertificates[0], r.TLS.PeerCertificates[1:]
	c := caller{name: trust.Certname(leaf)}
	now := time.Now()
	err := s.authority.Verify(leaf, others, now, x509.ExtKeyUsageClientAuth)
	switch {
	case errors.Is(err, trust.ErrRevoked):
		return c, forbidden("certificate-revoked", "%s: get a new one from the Puppet CA", err)
	case err != nil && s.authority.Verify(leaf, others, leaf.NotAfter, x509.ExtKeyUsageClientAuth) == nil:
		kind := "certificate-expired"
		if now.Before(leaf.NotBefore) {
			kind = "certificate-not-yet-valid"
		}
		return c, forbidden(kind, "%s; it is %s here", err, now.UTC().Format(time.RFC3339))
	case err != nil:
		return c, forbidden("certificate-untrusted", "%s", err)
	case c.name == "":
		return c, forbidden("certificate-untrusted", "the client certificate has no common name")
	}
	return c, nil
}

// authorise says whether a caller may read, or write.
func (s *Server) authorise(c caller, write bool) *Fault {
	if c.local {
		return nil
	}
	s.mu.Lock()
	mayWrite := s.allow.write[c.name]
	mayRead := mayWrite || s.allow.all || s.allow.read[c.name]
	s.mu.Unlock()
	switch {
	case !mayRead && write:
		return forbidden("not-allowed", "%q may do nothing here: the line `admin_allow write %[1]s` in the Corefile would allow it", c.name)
	case !mayRead:
		return forbidden("not-allowed", "%q may do nothing here: the line `admin_allow read %[1]s` in the Corefile would allow it", c.name)
	case write && !mayWrite:
		return forbidden("read-only", "%q may read, but not write: the line `admin_allow write %[1]s` in the Corefile would allow it", c.name)
	}
	return nil
}

func forbidden(kind, format string, v ...any) *Fault {
	return &Fault{Status: http.StatusForbidden, Type: kind, Title: "Not allowed", Detail: fmt.Sprintf(format, v...)}
}
