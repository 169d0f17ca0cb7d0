package cadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// ServiceConfig is what NewService needs.
type ServiceConfig struct {
	Dir *Dir
	Gap uint64 // by which the serial is moved on opening; 0: DefaultGap
	// Stamp is the version of the camaster that the role is being opened under.
	Stamp func() string
	// Rejoining reports whether an operator's rejoin is under way: becoming a standby may
	// then replace a CA that has what the camaster has not, and waits until it is done.
	// nil: never.
	Rejoining func() bool

	// Of ModeService:
	Config         string        // the path of services.d/ca.cfg
	Restart        role.Command  // restarts puppetserver
	RestartTimeout time.Duration // of that, and of coming up then; 0: 5 minutes, as systemd's unit has it
	StatusURL      string        // https://CERTNAME:8140/status/v1/simple/ca
	Client         *http.Client  // for it: with the Puppet CA, and a time-out

	Log *slog.Logger // nil: none
}

// Service is the CA as one of the role's services. It is open while puppetserver can
// sign; a standby while the cadir follows the camaster's, or has nothing but what came
// from one; else closed.
type Service struct {
	ServiceConfig
	dir *Dir
}

// Facts are what a Service observes for its Plan.
type Facts struct {
	CA         evidence.CA
	Unfinished bool // verifying the set goes on at the next look
	Configured bool // ca.cfg has the CA service on
	On         bool // puppetserver says that its CA service is on
	Answers    bool // puppetserver says anything
}

// glimpse bounds an observation's look at the set, and its question to puppetserver.
const glimpse = time.Second

// NewService checks a configuration.
func NewService(c ServiceConfig) (*Service, error) {
	if c.Dir == nil || c.Stamp == nil {
		return nil, errors.New("the CA as a service: it needs a cadir and the camaster's version")
	}
	if c.Rejoining == nil {
		c.Rejoining = func() bool { return false }
	}
	if c.RestartTimeout == 0 {
		c.RestartTimeout = 5 * time.Minute
	}
	if c.Gap == 0 {
		c.Gap = DefaultGap
	}
	if c.Gap > MaxSerial/2 {
		return nil, fmt.Errorf("the CA as a service: a gap of %d leaves no serials: %d is the default", c.Gap, DefaultGap)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dir.Mode() == ModeService {
		u, err := url.Parse(c.StatusURL)
		switch {
		case !filepath.IsAbs(c.Config):
			return nil, fmt.Errorf("the CA in mode service: the path of ca.cfg is %q: give an absolute one", c.Config)
		case len(c.Restart) == 0:
			return nil, errors.New("the CA in mode service: give the command that restarts puppetserver")
		case err != nil || u.Host == "" || c.Client == nil:
			return nil, fmt.Errorf("the CA in mode service: %q is no URL of puppetserver's status, or there is no client for it", c.StatusURL)
		}
	}
	return &Service{c, c.Dir}, nil
}

// Name is "ca".
func (s *Service) Name() string { return "ca" }

// Observe looks at the seal, at the set as far as a second allows, and in ModeService at
// ca.cfg and puppetserver. Puppetserver's own word for its CA service does not count for
// a seal: it says "running" of a sealed one.
func (s *Service) Observe(ctx context.Context) role.Observation {
	var f Facts
	look, cancel := context.WithTimeout(ctx, glimpse)
	defer cancel()
	isSealed, err := s.dir.Sealed()
	if err != nil {
		return role.Observation{State: role.Unknown, Detail: err.Error(), Facts: f}
	}
	var unfinished *UnfinishedError
	f.CA, err = s.dir.evidence(look)
	f.Unfinished = errors.As(err, &unfinished)
	o := role.Observation{Facts: f}
	switch {
	case !isSealed:
		o.State, o.Detail = role.Open, fmt.Sprintf("not sealed, next serial %s", f.CA.Serial)
	case s.dir.Following():
		o.State, o.Detail = role.Standby, "sealed, follows "+orNobody(f.CA.Source)
	case isNone(err):
		o.State, o.Detail = role.Standby, "nothing of a CA's own"
	case s.dir.copied():
		o.State, o.Detail = role.Standby, "sealed, a copy of the camaster's"
	default:
		o.State, o.Detail = role.Closed, "sealed"
	}
	if s.dir.Mode() == ModeService {
		o = s.observeService(ctx, o, f)
	}
	if f.CA.Problem != "" {
		o.Detail += "; " + f.CA.Problem
	}
	return o
}

func orNobody(source string) string {
	if source == "" {
		return "whoever is camaster"
	}
	return source
}

// observeService adds what ca.cfg and puppetserver say. A seal without the switch, or the
// switch without a seal, is neither open nor closed: the next restart would change it.
func (s *Service) observeService(ctx context.Context, o role.Observation, f Facts) role.Observation {
	on, err := Configured(s.Config)
	if err != nil {
		return role.Observation{State: role.Unknown, Detail: err.Error(), Facts: f}
	}
	f.Configured = on
	var status string
	f.On, f.Answers, status = s.status(ctx)
	o.Facts = f
	switch open := o.State == role.Open; {
	case open == on && (f.On == on || !f.Answers):
		o.Detail += ", " + status
	case open:
		o.State, o.Detail = role.Unknown, fmt.Sprintf("not sealed, but %s has the CA service %s, and %s", s.Config, onOff(on), status)
	default:
		o.State, o.Detail = role.Unknown, fmt.Sprintf("sealed, but %s has the CA service %s, and %s", s.Config, onOff(on), status)
	}
	return o
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// status asks puppetserver whether its CA service is on: 200 if it is, 404 if not.
func (s *Service) status(ctx context.Context) (on, answers bool, detail string) {
	ctx, cancel := context.WithTimeout(ctx, glimpse)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.StatusURL, nil)
	if err != nil {
		return false, false, err.Error()
	}
	response, err := s.Client.Do(r)
	if err != nil {
		return false, false, "puppetserver does not answer: " + err.Error()
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, 4096))
	switch response.StatusCode {
	case http.StatusOK:
		return true, true, "puppetserver has its CA service on"
	case http.StatusNotFound:
		return false, true, "puppetserver has its CA service off"
	}
	return false, false, fmt.Sprintf("puppetserver answers %s", response.Status)
}

// Plan opens only a set that is whole and verified, and closes whatever there is.
func (s *Service) Plan(o role.Observation, to role.State) ([]role.Step, error) {
	f, ok := o.Facts.(Facts)
	if !ok {
		f = Facts{}
	}
	switch to {
	case role.Open:
		return s.planOpen(o, f)
	case role.Closed, role.Standby:
		return s.planClose(o, to), nil
	}
	return nil, fmt.Errorf("the CA cannot be made %s", to)
}

func (s *Service) planOpen(o role.Observation, f Facts) ([]role.Step, error) {
	if o.State == role.Open {
		return nil, nil
	}
	var steps []role.Step
	switch begun := s.dir.noJournal() != nil; {
	case begun: // the camaster that it came from may be gone
		steps = append(steps, role.Step{Name: "finish the replacement", Detail: "of " + s.dir.path + ", which a crash has cut off", Timeout: 5 * time.Minute, Run: s.finish})
	case !ok(f.CA) && !f.Unfinished:
		return nil, fmt.Errorf("the CA is not opened: %s", f.CA.Problem)
	}
	steps = append(steps, []role.Step{
		{Name: "verify the CA", Detail: "key, certificates, serial, inventory and CRL of " + s.dir.path, Timeout: 5 * time.Minute, Run: s.verify},
		{Name: "move the serial", Detail: fmt.Sprintf("past %s by %d, once for this version of the camaster", f.CA.Serial, s.Gap), Timeout: time.Minute, Run: s.bump},
		{Name: "unseal the CA", Detail: "give " + s.dir.file(serialFile) + " back to puppetserver", Timeout: time.Minute, Run: s.unseal},
	}...)
	if s.dir.Mode() == ModeService {
		steps = append(steps, s.switchSteps(f, true)...)
	}
	return steps, nil
}

func (s *Service) finish(ctx context.Context) (string, error) {
	return "it is whole", s.dir.Recover(ctx)
}

// ok reports whether evidence is of a set that may be opened.
func ok(e evidence.CA) bool { return e.Complete }

func (s *Service) planClose(o role.Observation, to role.State) []role.Step {
	var steps []role.Step
	if o.State != role.Closed && o.State != role.Standby {
		steps = append(steps, role.Step{Name: "seal the CA", Detail: "take " + s.dir.file(serialFile) + " from puppetserver", Timeout: settled + 10*time.Second, Run: s.seal})
		if s.dir.Mode() == ModeService {
			f, _ := o.Facts.(Facts)
			steps = append(steps, s.switchSteps(f, false)...)
		}
	}
	f := s.dir.followed()
	switch {
	case to == role.Closed:
		if o.State == role.Standby && f.on {
			steps = append(steps, role.Step{Name: "follow nobody", Detail: "what is in " + s.dir.path + " stays", Timeout: time.Minute, Run: s.unfollow})
		}
	case s.Rejoining():
		if !f.on || f.err != "" || f.synced.IsZero() {
			steps = append(steps, role.Step{Name: "take over the camaster's CA", Detail: "what is in " + s.dir.path + " is replaced, and kept beside", Timeout: 5 * time.Minute, Run: s.rejoin})
		}
	case !f.on:
		steps = append(steps, role.Step{Name: "follow the camaster", Detail: "keep " + s.dir.path + " as the camaster's", Timeout: time.Minute, Run: s.follow})
	}
	return steps
}

func (s *Service) unfollow(context.Context) (string, error) {
	s.dir.Unfollow()
	return "what is there stays", nil
}

func (s *Service) follow(context.Context) (string, error) {
	s.dir.Follow(false)
	return "it is kept as the camaster's", nil
}

func (s *Service) verify(ctx context.Context) (string, error) {
	s.dir.Unfollow()
	if err := s.dir.Recover(ctx); err != nil {
		return "", err
	}
	set, err := s.dir.Verify(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d certificates, next serial %04X, set %.12s", set.Signed, set.Serial, set.Hash), nil
}

func (s *Service) bump(ctx context.Context) (string, error) {
	stamp := s.Stamp()
	from, to, err := s.dir.BumpSerial(ctx, stamp, s.Gap)
	if err != nil {
		return "", err
	}
	if from == to {
		return fmt.Sprintf("it is %04X, moved for version %s already", to, stamp), nil
	}
	return fmt.Sprintf("from %04X to %04X", from, to), nil
}

func (s *Service) unseal(ctx context.Context) (string, error) {
	if err := s.dir.Unseal(ctx); err != nil {
		return "", err
	}
	return "puppetserver can sign", nil
}

func (s *Service) seal(ctx context.Context) (string, error) {
	s.dir.Unfollow()
	if err := s.dir.Seal(ctx); err != nil {
		return "", err
	}
	return "puppetserver can sign nothing", nil
}

// stuck is how long the same failure of the puller is waited for to pass.
const stuck = 20 * time.Second

// rejoin waits until the puller has made the cadir the camaster's.
func (s *Service) rejoin(ctx context.Context) (string, error) {
	begun := time.Now()
	s.dir.Follow(true)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for failure, since := "", begun; ; {
		f := s.dir.followed()
		if f.synced.After(begun) {
			return "it is the same as on " + f.source, nil
		}
		if f.err != failure {
			failure, since = f.err, time.Now()
		}
		var err error
		if failure != "" && time.Since(since) > stuck {
			err = errors.New(failure)
		}
		select {
		case <-ctx.Done():
			err = errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
		if err != nil {
			return "", fmt.Errorf("the CA is not the camaster's yet: %w", err)
		}
	}
}
