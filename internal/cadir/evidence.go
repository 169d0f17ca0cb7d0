package cadir

import (
	"context"
	"fmt"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Evidence is a look for a report. It ends with ctx, and says then how far it came; the
// next one goes on there.
func (d *Dir) Evidence(ctx context.Context) evidence.CA {
	e, _ := d.evidence(ctx)
	return e
}

// evidence has the error that Problem is the text of.
func (d *Dir) evidence(ctx context.Context) (evidence.CA, error) {
	e := evidence.CA{Mode: d.options.Mode}
	var err error
	if e.Sealed, err = d.Sealed(); err != nil {
		e.Problem = err.Error()
		return e, err
	}
	set, err := d.Look(ctx)
	if err == nil {
		err = d.noJournal()
	}
	if err != nil {
		e.Problem = err.Error()
	}
	if set != nil {
		e.Complete = err == nil
		e.Serial = string(formatSerial(set.Serial))
		e.Hash, e.Signed, e.CRL = set.Hash, set.Signed, set.crl()
	}
	f := d.followed()
	e.Source, e.Synced, e.Error = f.source, f.synced, f.err
	return e, err
}

// crl is the list that the CA itself signs.
func (s *Set) crl() *evidence.CRL {
	b := s.tops[certFile].value.(*bundle)
	return s.tops[crlFile].value.(*crls).evidence(b.signer(s.tops[keyFile].value))
}

// CheckStart says why puppetserver must not be started with this cadir while its CA
// service is on. With none of a CA's files it would make a new CA, and with some it does
// not start (certificate_authority.clj, initialize!). It does not verify the set.
func (d *Dir) CheckStart() error {
	var missing []string
	required := 0
	for _, t := range tops {
		if !t.required {
			continue
		}
		required++
		s, err := statPath(d.file(t.name))
		if err != nil {
			return fmt.Errorf("cadir %q: %w", d.path, err)
		}
		if s.zero() {
			missing = append(missing, t.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	err := &MissingError{missing, len(missing) == required}
	if err.All {
		return fmt.Errorf("cadir %q: %w; puppetserver would make a new CA: wait until this one has come from the camaster", d.path, err)
	}
	return fmt.Errorf("cadir %q: %w; puppetserver would not start", d.path, err)
}
