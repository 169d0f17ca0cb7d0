# Draws masters as an agent does, with Puppet's own picker, and prints how often each order
# came for each service, as JSON: picks.rb SRV_DOMAIN DRAWS SERVICE...
require 'json'
require 'puppet'
Puppet.initialize_settings

domain, draws, *services = ARGV
dns = Puppet::HTTP::DNS.new
found = services.to_h do |service|
  orders = Hash.new(0)
  Integer(draws).times do
    order = []
    dns.each_srv_record(domain, service.to_sym) { |target, _port| order << target.to_s }
    orders[order.join(' ')] += 1
  end
  [service, orders]
end
puts JSON.generate(found)
