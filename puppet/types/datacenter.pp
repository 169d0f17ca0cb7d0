# The name of a datacenter: one label of srv_domain.
type Puppetsrv::Datacenter = Pattern[/\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z/]
