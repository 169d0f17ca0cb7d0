package health

// Opinion is what an observer believes of one subject.
type Opinion struct {
	// Known is false without evidence: never observed, or too long ago.
	Known   bool
	Verdict Verdict
}

// Observer is a live observer with its opinions, one for each subject.
type Observer struct {
	Name       string
	Datacenter string // where it stands; "" counts for no datacenter
	Own        bool   // it is the one that decides
	Opinions   []Opinion
}

// Isolated reports whether o reaches nothing at all of what it looks at. Then it
// rather has no network than that everything is down, and distrusts itself.
func (o *Observer) Isolated() bool {
	known := false
	for _, p := range o.Opinions {
		if p.Known && !p.Verdict.Down {
			return false
		}
		known = known || p.Known
	}
	return known
}

// Panel is the observers whose opinions make the verdicts for one datacenter.
type Panel struct {
	first, second, last []*Observer // see NewPanel
}

// NewPanel returns the panel of a datacenter: its own observers; where none of
// them is left to say anything, all observers; where all those distrust
// themselves, they too, because then it may just be true.
func NewPanel(datacenter string, observers []Observer) *Panel {
	p := &Panel{}
	for i := range observers {
		o := &observers[i]
		p.last = append(p.last, o)
		if o.Isolated() {
			continue
		}
		p.second = append(p.second, o)
		if o.Datacenter == datacenter && datacenter != "" {
			p.first = append(p.first, o)
		}
	}
	return p
}

// Verdict is what the panel's majority believes of subject i. A tie is decided by
// the own opinion, and without one it is up: a wrong "up" costs an agent one
// connection. A master is left out for its certificate only if a majority saw
// that very thing.
func (p *Panel) Verdict(i int) Verdict {
	for _, voters := range [][]*Observer{p.first, p.second, p.last} {
		if v, ok := majority(voters, i); ok {
			return v
		}
	}
	return Verdict{}
}

// majority is the verdict of voters on subject i; not ok if none has an opinion.
func majority(voters []*Observer, i int) (v Verdict, ok bool) {
	var votes, down, certificate int
	var own, ownCertificate *Verdict // the own opinion, if it is that
	var first, other *Verdict        // the earliest found of each kind
	for _, o := range voters {
		p := &o.Opinions[i]
		if !p.Known {
			continue
		}
		votes++
		if o.Own {
			own = &p.Verdict
		}
		if !p.Verdict.Down {
			continue
		}
		down++
		if p.Verdict.CertificateFails() {
			certificate++
			if ownCertificate == nil || o.Own {
				ownCertificate = &p.Verdict
			}
		} else if other == nil || o.Own {
			other = &p.Verdict
		}
		if first == nil || p.Verdict.Since.Before(first.Since) {
			first = &p.Verdict
		}
	}
	switch {
	case votes == 0:
		return v, false
	case 2*down < votes, 2*down == votes && (own == nil || !own.Down):
		// Up, as an up voter says it: with the time since.
		for _, o := range voters {
			if p := &o.Opinions[i]; p.Known && !p.Verdict.Down && (v.Since.IsZero() || o.Own) {
				v = p.Verdict
			}
		}
		return v, true
	case 2*certificate > votes, 2*certificate == votes && own != nil && own.CertificateFails():
		v = *ownCertificate
	case other != nil:
		v = *other
	default: // too few saw the certificate to leave it out
		v = *first
		v.Reason = ReasonTLS
	}
	v.Since = first.Since
	return v, true
}
