# A network in CIDR notation. Only the form is looked at: the fact does the rest.
type Puppetsrv::Network = Pattern[
  /\A[0-9]{1,3}(\.[0-9]{1,3}){3}\/([0-9]|[12][0-9]|3[0-2])\z/,
  /\A(?=[^\/]*:)[0-9a-fA-F.:]+\/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])\z/,
]
