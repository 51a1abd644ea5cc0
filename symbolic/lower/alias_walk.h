// A walk over a graph, in order, that knows which tensors share memory: each tensor is a base or a
// view of one, and a write to any of them makes a newer version of the base. lower/mutation.cpp
// finds with it which writes can become functional, and then makes them so.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "symbolic/lower/view_forms.h"

namespace qcdq {

/// Why the writes to a base stay as they are.
struct BlockedWrite {
  torch::jit::Node* node;
  std::string reason;
  std::string hint;
};

/// In the order of the graph.
struct ByNumber {
  bool operator()(const torch::jit::Value* a, const torch::jit::Value* b) const {
    return a->unique() < b->unique();
  }
};

/// What a first walk finds, by the values that stand for the bases.
struct WriteFindings {
  std::unordered_set<const torch::jit::Value*> written;
  std::map<const torch::jit::Value*, BlockedWrite, ByNumber> blocked;
  bool possible() const;  // some write can become functional
};

class AliasWalk {
 public:
  /// Finds only where `plan` is null; else makes the writes functional that the plan does not name
  /// as blocked.
  AliasWalk(torch::jit::Graph& graph, const WriteFindings* plan) : graph_(graph), plan_(plan) {}
  WriteFindings run();

 private:
  /// A piece of memory.
  struct Base {
    torch::jit::Value* origin;  // what made it
    size_t version = 0;
    bool frozen = false;  // its writes stay
  };
  /// A tensor, or a list of the parts of one: a base as a whole, or a view of another.
  struct Alias {
    Base* base;
    Alias* parent;  // null: the whole
    ViewStep step;
    torch::jit::Value* value;  // as of `version`
    size_t version;
    bool moved = false;  // `value` is no longer what the graph first called so
  };
  /// What values stand for: a tensor object, or a container of some.
  struct Object {
    Alias* alias = nullptr;
    torch::jit::Node* maker = nullptr;  // of a list or tuple that nothing changes
    bool remade = false;                // `maker` is no longer the graph's own
    std::vector<Object*> elements;      // its elements; null for those that hold no tensor
    std::map<size_t, Object*> parts;    // of a list of views, by place
    /// Memory that a value may share, which is known no closer, and the version that it had.
    std::map<Base*, size_t> shares;
  };

  bool applies() const { return plan_ != nullptr; }
  Object* find(const torch::jit::Value* value) const;
  Object* bind_new(const torch::jit::Value* value);
  void bind(const torch::jit::Value* value, Object* object);
  void collect(const Object& object, std::map<Base*, size_t>& shares) const;
  void block(Base& base, torch::jit::Node* node, const char* reason, const char* hint);
  void block_all(const Object& object, torch::jit::Node* node, const char* reason,
                 const char* hint);

  void find_changed_lists(torch::jit::Block* block);
  void walk(torch::jit::Block* block);
  void visit(torch::jit::Node* node);
  void visit_if(torch::jit::Node* node);
  void visit_loop(torch::jit::Node* node);
  void make_container(torch::jit::Node* node);
  bool take_elements(torch::jit::Node* node);
  bool take_view_of(torch::jit::Node* node);
  void make_outputs(torch::jit::Node* node);
  void make_fresh(torch::jit::Value* value);
  void make_shared(const torch::jit::Value* value, const std::map<Base*, size_t>& shares);
  Object* part_of(Object& list, torch::jit::Node* node, size_t place, size_t output);
  Alias* new_alias(Base* base, Alias* parent, ViewStep step, torch::jit::Value* value);

  void use_newest(torch::jit::Node* user, size_t place);
  torch::jit::Value* newest(Object& object, torch::jit::Value* value, torch::jit::Node* user);
  torch::jit::Value* newest(Alias& alias, torch::jit::Node* user);
  torch::jit::Value* newest_container(Object& object, torch::jit::Value* value,
                                      torch::jit::Node* user);

  void write(torch::jit::Node* node);
  void change_container(torch::jit::Node* node);
  void change_shape(torch::jit::Node* node, Object& object);
  std::vector<Alias*> targets_of(torch::jit::Node* node, const std::vector<size_t>& places);
  void check_target(torch::jit::Node* node, const Alias& target);
  void bind_results(torch::jit::Node* node, const std::vector<size_t>& places);
  torch::jit::Node* functional_form(torch::jit::Node* write, const std::vector<size_t>& places);
  void store(Alias& target, torch::jit::Value* part, torch::jit::Node* node);
  void set(Alias& alias, torch::jit::Value* value);
  torch::jit::Value* take_from(const Alias& alias, const Alias& top, torch::jit::Value* source,
                               const NodeMaker& make);
  void fill_empty(Alias& alias);

  torch::jit::Graph& graph_;
  const WriteFindings* plan_;
  WriteFindings found_;
  std::unordered_map<const torch::jit::Value*, Object*> objects_;
  std::unordered_map<const torch::jit::Value*, Base*> bases_;
  std::unordered_set<const torch::jit::Value*> changed_lists_;
  bool any_list_changes_ = false;
  std::vector<torch::jit::Node*> dead_;
  std::deque<Base> all_bases_;
  std::deque<Alias> all_aliases_;
  std::deque<Object> all_objects_;
};

}  // namespace qcdq
