package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// opRejoin asks a member to make its host a standby. Its argument has an id, by which
// evidence then says what becomes of it.
const opRejoin = "rejoin"

// Rejoin implements admin.Backend.
func (n api) Rejoin(ctx context.Context, actor, name string) (admin.Rejoin, error) {
	p := n.look()
	m, err := p.master(name)
	if err != nil {
		return admin.Rejoin{}, err
	}
	peer := p.member(m.Host)
	switch {
	case m.Host == p.camaster():
		return admin.Rejoin{}, conflict("is-camaster", "It is the camaster", "%s is the camaster, and cannot be a standby: make another one the camaster first", host(m.Host))
	case peer == nil:
		return admin.Rejoin{}, conflict("no-member", "No member", "no member is known on %s: the CA and the database are moved by hand there", host(m.Host))
	case !peer.Fresh:
		return admin.Rejoin{}, conflict("member-silent", "The member is silent", "the member on %s is %s: start it", host(m.Host), memberOf(peer, p.time).silence())
	case peer.Report.Member.Role == nil:
		return admin.Rejoin{}, conflict("no-role", "No role", "the member on %s holds no role: see `roles` in its configuration", host(m.Host))
	}
	r := admin.Rejoin{Host: host(m.Host), ID: newID()}
	arg, err := json.Marshal(map[string]string{"id": r.ID})
	if err != nil {
		return admin.Rejoin{}, err
	}
	if _, err := n.m.cluster.Load().Ask(ctx, peer.Name, opRejoin, arg); err != nil {
		if ctx.Err() != nil {
			return admin.Rejoin{}, ctx.Err()
		}
		return admin.Rejoin{}, &admin.Fault{Status: http.StatusConflict, Type: "member-refused", Title: "The member does not", Detail: "the member on " + r.Host + ": " + err.Error()}
	}
	n.cfg.Log.Infof("%s asked %s to rejoin (%s)", actor, r.Host, r.ID)
	n.m.events.add(n.event(p, "member", m.Host, "%s is to become a standby: rejoin (%s)", r.Host, actor))
	return r, nil
}

func newID() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
