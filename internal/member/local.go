package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// The member's own socket is for the host's commands: whoever may open it, by its
// mode, may drain the host and look.

// maxLocal bounds a request's body, in bytes.
const maxLocal = 64 << 10

// LocalStatus is the answer to GET /v1/status.
type LocalStatus struct {
	Certname string            `json:"certname"`
	Release  string            `json:"release"`
	Started  time.Time         `json:"started"`
	Camaster string            `json:"camaster,omitempty"` // as the newest version known here says
	Version  string            `json:"version"`
	Missing  []string          `json:"missing,omitempty"` // nodes not heard since the start
	Members  []LocalPeer       `json:"members"`
	Evidence evidence.Evidence `json:"evidence"`
	Age      float64           `json:"age"` // of the evidence, seconds
	Problems []string          `json:"problems"`
}

// LocalPeer is another member as seen from here.
type LocalPeer struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// LocalPlan is the answer to GET /v1/plan?to=open|closed|standby.
type LocalPlan struct {
	Steps []evidence.Step `json:"steps"`
}

// LocalGate is the answer to POST /v1/gate/SERVICE.
type LocalGate struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

func (m *Member) listenLocal() error {
	path := m.settings().Socket
	l, remove, err := admin.ListenUnix(path)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { answer(w, m.status()) })
	mux.HandleFunc("GET /v1/plan", m.servePlan)
	mux.HandleFunc("POST /v1/gate/{service}", func(w http.ResponseWriter, r *http.Request) { answer(w, m.gate(r.Context(), r.PathValue("service"))) })
	mux.HandleFunc("PUT /v1/drain", m.serveDrain)
	mux.HandleFunc("DELETE /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		m.setDrain(nil)
		answer(w, DrainResult{Detail: "undrained"})
	})
	mux.HandleFunc("POST /v1/leave", func(w http.ResponseWriter, r *http.Request) {
		if m.role != nil && m.role.Decision().To == role.Open {
			http.Error(w, "this host is camaster: `puppetsrvctl switchover` first, or nobody would close it", http.StatusConflict)
			return
		}
		m.leaving.Do(func() { close(m.left) })
		answer(w, struct{}{})
	})
	m.local = &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(debugWriter{m.log}, "", 0), BaseContext: func(net.Listener) context.Context { return m.ctx },
	}
	m.done.Go(func() {
		defer remove()
		if err := m.local.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.log.Errorf("Socket %s: %s", path, err)
		}
	})
	return nil
}

func (m *Member) serveDrain(w http.ResponseWriter, r *http.Request) {
	var request DrainRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, maxLocal)).Decode(&request); err != nil {
		http.Error(w, "a JSON object is wanted: "+err.Error(), http.StatusBadRequest)
		return
	}
	result, err := m.drain(r.Context(), request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, result)
}

func (m *Member) servePlan(w http.ResponseWriter, r *http.Request) {
	steps, err := m.plan(r.Context(), r.URL.Query().Get("to"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	answer(w, LocalPlan{steps})
}

// Local asks the member of this host over its socket.
type Local struct {
	path string
	http *http.Client
}

// NewLocal is a client of the member at a socket.
func NewLocal(path string) *Local {
	return &Local{path, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}

// Status is how the member and its host are.
func (l *Local) Status(ctx context.Context) (s LocalStatus, err error) {
	err = l.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Plan is by which steps the role would become open, closed or standby.
func (l *Local) Plan(ctx context.Context, to string) (p LocalPlan, err error) {
	err = l.call(ctx, http.MethodGet, "/v1/plan?to="+to, nil, &p)
	return p, err
}

// Gate says whether a service may start now.
func (l *Local) Gate(ctx context.Context, service string) (g LocalGate, err error) {
	err = l.call(ctx, http.MethodPost, "/v1/gate/"+service, nil, &g)
	return g, err
}

// Drain makes the host's wish known, and may wait.
func (l *Local) Drain(ctx context.Context, r DrainRequest) (d DrainResult, err error) {
	err = l.call(ctx, http.MethodPut, "/v1/drain", r, &d)
	return d, err
}

// Undrain ends the wish.
func (l *Local) Undrain(ctx context.Context) (d DrainResult, err error) {
	err = l.call(ctx, http.MethodDelete, "/v1/drain", nil, &d)
	return d, err
}

// Leave has the host taken out of the cluster for good.
func (l *Local) Leave(ctx context.Context) error {
	var nothing struct{}
	return l.call(ctx, http.MethodPost, "/v1/leave", nil, &nothing)
}

// ErrNoMember is returned where no member listens.
var ErrNoMember = errors.New("no member runs on this host")

func (l *Local) call(ctx context.Context, method, path string, body, into any) error {
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://member"+path, sent)
	if err != nil {
		return err
	}
	response, err := l.http.Do(r)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nothing listens at %s; is puppetsrv-member.service started?", ErrNoMember, l.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is for root: %w", l.path, fs.ErrPermission)
	case err != nil:
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(string(bytes.TrimSpace(data)))
	}
	return json.Unmarshal(data, into)
}
