# frozen_string_literal: true

require 'ipaddr'
require 'yaml'

module Puppetsrv
  # BadFile says which file, what is wrong in it, and what would be right.
  class BadFile < StandardError; end

  # Network is a range of addresses, its prefix length in bits, and the datacenter it is in.
  Network = Struct.new(:range, :length, :datacenter) unless const_defined?(:Network, false)

  # TooDeep is a YAML text of lists in lists.
  class TooDeep < StandardError; end

  # Flat builds the tree of a YAML text, and gives up where it is deep: for that the parser takes time
  # by the square.
  class Flat < Psych::TreeBuilder
    %w[mapping sequence].each do |kind|
      define_method("start_#{kind}") do |*args|
        @depth = (@depth || 0) + 1
        raise TooDeep if @depth > 3

        super(*args)
      end

      define_method("end_#{kind}") do
        @depth -= 1
        super()
      end
    end
  end

  # Files reads the files of the fact. Limits are methods, not constants, since Facter may load
  # two copies of this file into one process.
  module Files
    # The size of networks.yaml, in bytes: some 10 000 networks.
    def self.max_bytes
      256 * 1024
    end

    # The text of a file of at most limit bytes, or nil where there is none.
    def self.read(path, limit)
      return nil unless File.exist?(path)

      # A named pipe would hold up the run for ever.
      raise BadFile, "#{path}: this is no regular file: write one, or remove it" unless File.file?(path)

      text = File.open(path, 'rb') { |f| f.read(limit + 1) } || String.new
      raise BadFile, "#{path}: more than #{limit} bytes: nothing that large belongs here" if text.bytesize > limit

      text = text.force_encoding(Encoding::UTF_8)
      raise BadFile, "#{path}: this is not UTF-8: write plain text" unless text.valid_encoding?

      text.delete_prefix("\uFEFF") # as editors on Windows begin a file
    rescue SystemCallError => e
      raise BadFile, "#{path}: cannot be read: #{e.message}"
    end

    # A datacenter's name: one label of srv_domain.
    def self.name(path, text)
      return text if text =~ /\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z/

      raise BadFile, "#{path}: #{quote(text)} is no datacenter's name: want one word of a-z, 0-9 and -, such as datacenter1"
    end

    # The networks in a text of YAML, `NAME: [NETWORK, ...]`. What is read is the tree as it is
    # written: nothing becomes an object, and `no: [...]` is a datacenter with the name no.
    def self.networks(path, text)
      want = 'want lines such as `datacenter1: [10.1.0.0/16]`'
      parser = Psych::Parser.new(Flat.new)
      parser.parse(text)
      documents = parser.handler.root.children
      raise BadFile, "#{path}: more than one YAML document: want one" if documents.size > 1

      root = documents.empty? ? nil : documents.first.root
      return [] if root.nil? || root.is_a?(Psych::Nodes::Scalar) && root.value.empty? # only comments

      raise BadFile, "#{path}: #{want}" unless root.is_a?(Psych::Nodes::Mapping)

      collect(path, root.children.each_slice(2), want)
    rescue TooDeep
      raise BadFile, "#{path}: lists in lists: #{want}"
    rescue Psych::Exception => e
      raise BadFile, "#{path}: this is not YAML: #{e.message}"
    end

    def self.collect(path, pairs, want)
      names = {}
      ranges = {} # the datacenter of each network
      all = pairs.flat_map do |key, list|
        raise BadFile, "#{path}: a key is no word: #{want}" unless key.is_a?(Psych::Nodes::Scalar)

        datacenter = name(path, key.value)
        raise BadFile, "#{path}: #{datacenter} is given twice: give all its networks in one list" if names[datacenter]

        names[datacenter] = true
        plain = list.is_a?(Psych::Nodes::Sequence) && list.children.all?(Psych::Nodes::Scalar)
        raise BadFile, "#{path}: #{datacenter} has no plain list of networks: #{want}" unless plain

        list.children.map { |node| network(path, datacenter, node.value) }
      end
      all.each do |n|
        other = (ranges[[n.range, n.length]] ||= n.datacenter)
        next if other == n.datacenter

        raise BadFile, "#{path}: #{n.range}/#{n.length} is in #{other} and in #{n.datacenter}: give it to one"
      end
    end

    # One network in CIDR notation. A bare address, or one with bits past the length, is more
    # likely a slip than meant.
    def self.network(path, datacenter, text)
      bad = "#{path}: #{datacenter}: #{quote(text)} is no network: want"
      range = cidr(text)
      raise BadFile, "#{bad} an address and a length, such as 10.1.0.0/16 or 2001:db8:1::/48" unless range

      address, length = text.split('/')
      raise BadFile, "#{bad} #{range}/#{length}, or a longer length" unless range == IPAddr.new(address)

      Network.new(range, length.to_i, datacenter)
    end

    def self.cidr(text)
      IPAddr.new(text) if text =~ %r{\A[0-9a-fA-F.:]+/\d{1,3}\z}
    rescue IPAddr::Error
      nil
    end

    # A text for a message, on one line and not long.
    def self.quote(text)
      text.length > 40 ? "#{text[0, 40].inspect}..." : text.inspect
    end

    private_class_method :collect, :network, :cidr, :quote
  end
end
