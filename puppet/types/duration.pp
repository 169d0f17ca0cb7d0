# Puppet's own duration, in seconds or with one of its units, and not zero.
type Puppetsrv::Duration = Variant[Integer[1], Pattern[/\A0*[1-9][0-9]*[smhdy]?\z/]]
