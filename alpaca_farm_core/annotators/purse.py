"""Whose money a judge spends: prices, the account it is booked on, and the cap.

In: requests and token counts. Out: amounts in picodollars, or a refusal. Holds no state: balances are
the ledger's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alpaca_farm_core.annotators.calls import Request
from alpaca_farm_core.annotators.ledger import Balance
from alpaca_farm_core.annotators.prices import PriceTable, likely_prompt_tokens, longest_answer, to_pico, usd
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import BudgetReachedError, ConfigError

DEFAULT_ACCOUNT = "default"


@dataclass(frozen=True)
class Purse:
    """Spending rules of one run.

    Attributes:
        prices: What tokens cost.
        account: What the spending is booked on; the same name again goes on with the same balance.
        budget: Cap in picodollars over the account's whole life; None = no cap; 0 = nothing may be spent.
        allow_unknown: Whether models without a price may be asked all the same (they count as nothing).
        by_batch: Whether calls are to go through the Batch API, for what is said before them.
    """

    prices: PriceTable
    account: str = DEFAULT_ACCOUNT
    budget: int | None = None
    allow_unknown: bool = False
    by_batch: bool = False

    @classmethod
    def of(cls, execution: ExecutionConfig) -> Purse:
        """Read the settings.

        Raises:
            ConfigError: the user's price table cannot be used.
        """
        return cls(
            PriceTable.load(execution.price_table),
            execution.budget_account or DEFAULT_ACCOUNT,
            None if execution.budget_usd is None else to_pico(execution.budget_usd),
            execution.allow_unknown_price,
            execution.batch_api,
        )

    def check(self, model: str) -> None:
        """Refuse a model whose price is not known under a budget.

        Raises:
            ConfigError: so it is.
        """
        if self.budget is not None and not self.allow_unknown and self.prices.find(model) is None:
            raise self.prices.refuse_unknown(model)

    def worst(self, request: Request, by_batch: bool = False) -> int | None:
        """Return the most that one try of the call can cost; None when that is not known.

        Raises:
            ConfigError: it is not known, but there is a budget to keep.
        """
        self.check(request.model)
        price = self.prices.find(request.model)
        amount = price.worst(request, by_batch) if price else None
        if price is not None and amount is None and self.budget is not None:
            raise ConfigError(
                f"Nothing bounds the length of the answers of '{request.model}', so a budget cannot be kept.",
                "Set max_tokens (or max_completion_tokens) in the annotator's completions_kwargs.",
            )
        return amount

    def price(self, request: Request, usage: Mapping[str, Any], by_batch: bool = False) -> int | None:
        """Return what an answer cost: by its token counts, without them at the worst case, else None."""
        price = self.prices.find(request.model)
        if price is None:
            return None
        amount = price.of(usage, by_batch)
        return amount if amount is not None else price.worst(request, by_batch)

    def likely(self, requests: Sequence[Request], mean: float | None, by_batch: bool = False) -> int | None:
        """Return what calls to one model are likely to cost, before they are made; None when that is not known.

        Args:
            requests: At least one.
            mean: Mean picodollars of such calls so far; None = none were made: then by the length of the prompts
                and answers as long as they may be.
            by_batch: Whether the Batch API is asked.
        """
        price = self.prices.find(requests[0].model)
        if price is None:
            return None
        if mean is not None:
            return int(mean * len(requests))
        usages = (
            {"prompt_tokens": likely_prompt_tokens(request), "completion_tokens": longest_answer(request) or 0}
            for request in requests
        )
        return sum(price.of(usage, by_batch) or 0 for usage in usages)

    def estimate(self, requests: Sequence[Request], mean: float | None, balance: Balance) -> str:
        """Say what calls will cost, before they are made; "" when that is not known or nothing.

        Args:
            requests: Calls to make, of one model.
            mean: Mean picodollars of such calls so far; None = none were made.
            balance: What the account has spent.
        """
        likely = self.likely(requests, mean, self.by_batch)
        if not likely:
            return ""
        basis = "by the length of the prompts" if mean is None else "by the mean of such calls so far"
        text = f"{len(requests)} calls to {requests[0].model} will cost about {roughly(likely)}, {basis}"
        if self.budget is None:
            return text
        room = self.budget - balance.committed
        short = "; THE BUDGET WILL NOT DO" if likely > room else ""
        return f"{text}; {dollars(max(0, room))} of the budget of {dollars(self.budget)} are left{short}"

    def exhausted(self, balance: Balance, n_left: int, next_call: int) -> BudgetReachedError:
        """Say that the next call does not fit, and how to go on."""
        assert self.budget is not None
        lost = f", {dollars(balance.lost)} for {balance.n_lost} calls cut off" if balance.lost else ""
        held = f", {dollars(balance.held)} held for calls in flight elsewhere" if balance.held else ""
        held += f", {dollars(balance.elsewhere)} spent by or granted to other machines" if balance.elsewhere else ""
        return BudgetReachedError(
            f"The budget of {dollars(self.budget)} is reached: {dollars(balance.spent)} spent{lost}{held} "
            f"(account '{self.account}'); the next call may cost {dollars(next_call)}, {n_left} calls are left.",
            "Run the same again with a higher execution.budget_usd (annotate: --budget-usd): every answer is kept, "
            "nothing is paid for twice.",
        )


def roughly(pico: int) -> str:
    """An estimate for people: cents, or two digits of a small sum."""
    amount = usd(pico)
    return f"${amount:.2f}" if amount == 0 or amount >= 0.1 else f"${amount:.2g}"


def dollars(pico: int) -> str:
    """Money for people: cents, or as many digits as a small sum needs."""
    amount = usd(pico)
    return f"${amount:.2f}" if amount == 0 or amount >= 0.1 else f"${amount:.4g}"
